"""From a table of users or items to an `Entity`: features as vocabulary rows, text rendered."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.compute import pc
from flm_torchrec.data.dataset import Column, Entity
from flm_torchrec.data.schema import EntitySchema, Feature, template_parts
from flm_torchrec.data.tables import Table
from flm_torchrec.data.vocabulary import Buckets, Vocabulary

_GAP = "\x00"  # stands for a missing value until the text is tidied
# A gap takes along the brackets around it, at the start of a text the separators behind it, and
# elsewhere those before it.
_TIDY = (
    (r"[(\[]\s*\x00\s*[)\]]", _GAP),
    (r"^(\s*\x00[\s,;:.|/-]*)+", ""),
    (r"[\s,;:|/-]*\x00", ""),
)


def entity_ids(table: Table, name: str) -> pa.Array:
    """(n,) the ids of a catalogue, each of them once."""
    ids = table.ids(name)
    unique = pc.unique(ids)
    if len(unique) < len(ids):
        place = pc.index_in(ids, unique).to_numpy()  # the order of first appearance
        row = int(np.argmax(place != np.arange(len(ids))))
        earlier = pc.index(ids, ids[row]).as_py() + 1
        raise table.problem(row, name, f"id {ids[row]} is already in data row {earlier}")
    return ids


def _single(rows: NDArray[np.int64], num_embeddings: int) -> Column:
    values = np.concatenate([[0], rows]).astype(np.int64)
    offsets = np.arange(len(values) + 1, dtype=np.int64)
    return Column(values=values, offsets=offsets, num_embeddings=num_embeddings)


def _multi(texts: pa.Array, separator: str, is_trained: NDArray[np.bool_]) -> Column:
    lists = pc.split_pattern(texts, separator)
    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
    owner = np.repeat(np.arange(len(texts)), sizes)
    values = pc.utf8_trim_whitespace(pc.list_flatten(lists))
    is_kept = pc.not_equal(values, "")
    owner, values = owner[is_kept.to_numpy(zero_copy_only=False)], values.filter(is_kept)
    vocabulary = Vocabulary.fit(values.filter(pa.array(is_trained[owner])))
    lengths = np.bincount(owner, minlength=len(texts))
    return Column(
        values=vocabulary.rows(values),
        offsets=np.concatenate([[0, 0], np.cumsum(lengths)]).astype(np.int64),
        num_embeddings=vocabulary.num_embeddings,
    )


def _column(table: Table, name: str, feature: Feature, is_trained: NDArray[np.bool_]) -> Column:
    if feature.kind == "numeric":
        assert feature.buckets is not None
        numbers = table.numbers(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
        buckets = Buckets.fit(numbers[is_trained], feature.buckets)
        return _single(buckets.rows(numbers), buckets.num_embeddings)
    if feature.kind == "multi":
        assert feature.separator is not None
        return _multi(table.texts(name), feature.separator, is_trained)
    values = table.discrete(name)
    vocabulary = Vocabulary.fit(values.filter(pa.array(is_trained)))
    return _single(vocabulary.rows(values), vocabulary.num_embeddings)


def _rendered(table: Table, template: str, features: Mapping[str, Feature]) -> list[str]:
    """(n,) the template filled in; missing values leave no litter, and a text of none is ""."""
    parts, is_known = [], pa.array(np.zeros(table.num_rows, bool))
    for literal, column in template_parts(template):
        parts.append(pa.scalar(literal, pa.large_string()))
        if column:
            values = table.texts(column)
            is_known = pc.or_(is_known, values.is_valid())
            feature = features.get(column)
            if feature is not None and feature.separator is not None:
                values = pc.replace_substring(values, feature.separator, ", ")
            parts.append(pc.fill_null(values, _GAP))
    joined = pc.binary_join_element_wise(*parts, pa.scalar("", pa.large_string()))
    has_gap = pc.match_substring(joined, _GAP)
    tidy = joined
    for pattern, replacement in _TIDY:
        tidy = pc.replace_substring_regex(tidy, pattern, replacement)
    joined = pc.if_else(has_gap, pc.utf8_trim_whitespace(tidy), joined)
    return pc.if_else(is_known, joined, "").to_pylist()


def build_entity(table: Table, schema: EntitySchema, ids: pa.Array, trained: pa.Array) -> Entity:
    """The catalogue of `table`, whose ids are `ids`, fitted on those of them in `trained`.

    `trained` holds the ids of the training interactions, repeats allowed.
    """
    vocabulary = Vocabulary.fit(trained)
    is_trained = vocabulary.rows(ids) > 0
    columns = {schema.id: _single(vocabulary.rows(ids), vocabulary.num_embeddings)}
    for name, feature in schema.features.items():
        columns[name] = _column(table, name, feature, is_trained)
    text = {
        name: ["", *_rendered(table, template, schema.features)]
        for name, template in schema.text.items()
    }
    rows = np.empty(table.num_rows + 1, dtype=object)
    rows[1:] = ids.to_pylist()
    return Entity(ids=rows, columns=columns, text=text)
