"""Feature columns of a table as rows of embedding tables, fitted on the rows seen in training."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flm_torchrec.data.dataset import Column
from flm_torchrec.data.schema import Feature
from flm_torchrec.data.tables import Table, is_list, is_text
from flm_torchrec.data.vocabulary import Buckets, Vocabulary
from flm_torchrec.errors import UserError


def single(rows: NDArray[np.int64], num_embeddings: int) -> Column:
    """A feature with one value a row, the unknown entity put before."""
    values = np.concatenate([np.zeros(1, np.int64), rows])
    return Column(
        values=values, offsets=np.arange(len(values) + 1), num_embeddings=num_embeddings
    )


def id_column(in_training: NDArray[np.bool_]) -> Column:
    """Entities met in training are numbered in the order of the catalogue, all others 0."""
    return single(np.where(in_training, np.cumsum(in_training), 0), int(in_training.sum()) + 1)


def numeric_column(table: Table, name: str, buckets: int, in_training: NDArray[np.bool_]) -> Column:
    numbers = table.numbers(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
    fitted = Buckets.fit(numbers[in_training], buckets)
    return single(fitted.rows(numbers), fitted.num_embeddings)


def categorical_column(table: Table, name: str, in_training: NDArray[np.bool_]) -> Column:
    values = table.discrete(name)
    vocabulary = Vocabulary.fit(values.filter(pa.array(in_training)))
    return single(vocabulary.rows(values), vocabulary.num_embeddings)


def split_values(table: Table, name: str, separator: str | None) -> pa.Array:
    """The column as lists; values are trimmed, empty ones dropped by whoever flattens them."""
    column = table.column(name)
    if is_list(column):
        return column.cast(pa.large_list(pa.large_string()))
    if separator is None:
        raise UserError(f"{table.path}: column '{name}' is multi and needs a 'separator' in schema")
    if not is_text(column):
        column = column.cast(pa.large_string())
    lists = pc.split_pattern(column, separator)
    return lists.cast(pa.large_list(pa.large_string()))


def multi_column(
    table: Table, name: str, separator: str | None, in_training: NDArray[np.bool_]
) -> Column:
    """A bag of values a row; a value that training lacks is left out of its bag."""
    lists = split_values(table, name, separator)
    owner = pc.list_parent_indices(lists).to_numpy()
    values = pc.utf8_trim_whitespace(pc.list_flatten(lists))
    values = pc.if_else(pc.equal(values, ""), None, values)
    vocabulary = Vocabulary.fit(values.filter(pa.array(in_training[owner])))
    rows = vocabulary.rows(values)
    counts = np.bincount(owner[rows > 0] + 1, minlength=table.num_rows + 1)
    return Column(
        values=rows[rows > 0],
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        num_embeddings=vocabulary.num_embeddings,
    )


def feature_column(
    table: Table, name: str, feature: Feature, in_training: NDArray[np.bool_]
) -> Column:
    """One feature of an entity's table; `in_training` (n,) marks the rows that it is fitted on."""
    if feature.kind == "numeric":
        assert feature.buckets is not None, "the schema demands it"
        return numeric_column(table, name, feature.buckets, in_training)
    if feature.kind == "multi":
        return multi_column(table, name, feature.separator, in_training)
    return categorical_column(table, name, in_training)
