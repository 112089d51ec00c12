"""The catalogues of users and items: from a table, or from the ids that interactions name, to an
`Entity`."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.compute import pc
from flm_torchrec.data.dataset import Column, Entity
from flm_torchrec.data.preparing.columns import Columns, Discrete
from flm_torchrec.data.preparing.features import (
    feature_arrays,
    hashed_feature,
    stored_features,
    vector_width,
)
from flm_torchrec.data.preparing.fit_features import fit_features
from flm_torchrec.data.preparing.fits import Fits
from flm_torchrec.data.preparing.templates import rendered
from flm_torchrec.data.preparing.vocabulary import of_one_type
from flm_torchrec.data.reading.location import Location
from flm_torchrec.data.reading.parts import is_there
from flm_torchrec.data.reading.tables import Table, read_table
from flm_torchrec.data.schema import EntitySchema, Feature, ItemSchema, Reviews
from flm_torchrec.errors import UserError


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


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The users or items that the data folder lists."""

    name: str
    schema: EntitySchema
    table: Table | None  # None where the interactions alone know the ids
    ids: pa.Array | None

    @classmethod
    def read(cls, location: Location, name: str, schema: EntitySchema) -> "Catalogue":
        """The table `name`, which may be missing where only ids are read of it."""
        if not needs_table(schema) and not is_there(location, name):
            return cls(name, schema, None, None)
        table = read_table(location, name)
        return cls(name, schema, table, entity_ids(table, schema.id))

    def rows(self, met: Discrete) -> tuple[pa.Array, NDArray[np.int32]]:
        """The ids of the rows from 1 on, those that only interactions have last, and the row of
        each of the values `met` in interactions."""
        ids, values = of_one_type(met.values[:0] if self.ids is None else self.ids, met.values)
        more = values.filter(pc.index_in(values, ids).is_null())
        ids = pa.concat_arrays([ids, more])
        return ids, pc.index_in(values, ids).to_numpy() + np.int32(1)


def needs_table(schema: EntitySchema) -> bool:
    """Whether more than ids is read of the table of users or items."""
    texts = schema.text.values() if isinstance(schema, ItemSchema) else ()
    return bool(schema.features) or any(isinstance(text, str) for text in texts)


def build_entity(
    catalogue: Catalogue,
    ids: pa.Array,
    is_trained: NDArray[np.bool_],
    fits: Fits,
    reviews: Mapping[str, list[str]],
    widths: Mapping[str, int] | None = None,
) -> Entity:
    """The entity of rows `ids` (n,), the first of which are the catalogue's, fitted on those
    that training meets (n,); `reviews` are texts of the rows (n + 1,), `widths` those of the
    vectors where the table does not decide."""
    schema, table = catalogue.schema, catalogue.table
    num_rows = len(ids)
    columns = _id_columns(catalogue, ids, is_trained, fits)
    num_ids = len(columns)
    numbers, vectors = [], {}
    if table is not None:
        known = is_trained[: table.num_rows]
        features = fit_features(
            _stored(table, schema, widths), schema.features, known, fits, catalogue.name
        )
        for name, found in features:
            if isinstance(found, Column):
                columns[name] = _padded(found, num_rows)
            elif found.ndim == 1:
                numbers.append(_rows(found, num_rows))
            else:
                vectors[name] = _rows(found, num_rows)
    shown = np.empty(num_rows + 1, dtype=object)
    shown[1:] = ids.to_pylist()
    none = np.zeros((num_rows + 1, 0), np.float32)
    return Entity(
        ids=shown,
        columns=columns,
        numbers=np.stack(numbers, axis=1) if numbers else none,
        vectors=vectors,
        text=_texts(schema, table, num_rows, reviews),
        num_ids=num_ids,
    )


def _stored(table: Table, schema: EntitySchema, widths: Mapping[str, int] | None) -> Columns:
    found = widths_of(table, schema.features) if widths is None else widths
    arrays = feature_arrays(table, schema.features, found)
    batch = pa.record_batch(stored_features(arrays, schema.features))
    return Columns(lambda: iter([batch]))


def widths_of(table: Table, features: Mapping[str, Feature]) -> dict[str, int]:
    """The number of numbers in each feature that is a vector."""
    widths = {}
    for name, feature in features.items():
        if feature.kind == "vector":
            width = vector_width(table, name, feature.separator)
            if width is None:
                raise UserError(f"{table.path}: column '{name}' holds no vector in any row")
            widths[name] = width
    return widths


def _id_columns(
    catalogue: Catalogue, ids: pa.Array, is_trained: NDArray[np.bool_], fits: Fits
) -> dict[str, Column]:
    """The id as a feature, 0 where training does not know it."""
    schema = catalogue.schema
    if schema.hash is None:
        trained = ids.filter(pa.array(is_trained))
        vocabulary = fits.vocabulary(f"{catalogue.name}.{schema.id}", trained)
        rows, size = {schema.id: vocabulary.rows(ids)}, vocabulary.num_embeddings
    else:
        ways = hashed_feature(schema.id, ids, schema.hash)
        rows = {name: way.to_numpy() * is_trained for name, way in ways.items()}
        size = schema.hash.rows + 1
    return {
        name: Column(
            values=_rows(way.astype(np.int64), len(ids)), offsets=None, num_embeddings=size
        )
        for name, way in rows.items()
    }


def _rows(values: NDArray, num_rows: int) -> NDArray:
    """`values` of rows 1, 2, ...; 0 in row 0 and behind the last of them."""
    padded = np.zeros((num_rows + 1, *values.shape[1:]), values.dtype)
    padded[1 : len(values) + 1] = values
    return padded


def _padded(column: Column, num_rows: int) -> Column:
    values, offsets = column.values.astype(np.int64), column.offsets
    if offsets is None:
        values = _rows(values, num_rows)
    else:
        more = np.full(num_rows + 1 - len(offsets), offsets[-1])
        offsets = np.concatenate([[0], offsets, more]).astype(np.int64)
    return Column(values=values, offsets=offsets, num_embeddings=column.num_embeddings)


def _texts(
    schema: EntitySchema, table: Table | None, num_rows: int, reviews: Mapping[str, list[str]]
) -> dict[str, list[str]]:
    """name -> (rows,) texts, "" where there is none."""
    texts = {}
    for name, template in schema.text.items() if isinstance(schema, ItemSchema) else ():
        if isinstance(template, Reviews):
            texts[name] = reviews[name]
        else:
            assert table is not None
            found = pc.fill_null(rendered(table, template, schema.features), "").to_pylist()
            texts[name] = ["", *found, *[""] * (num_rows - len(found))]
    return texts
