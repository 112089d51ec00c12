"""The features of a chunk: values that can be stored, and merged with those of other chunks."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.compute import pc
from flm_torchrec.data.preparing.vocabulary import hash_rows
from flm_torchrec.data.reading.tables import LARGEST_FLOAT32, Table, plain, to_numbers
from flm_torchrec.data.schema import Feature, Hash
from flm_torchrec.errors import UserError

SECOND_WAY = "__2"


def feature_arrays(
    table: Table, features: Mapping[str, Feature], widths: Mapping[str, int]
) -> dict[str, pa.Array]:
    """name -> (n,) plain values, lists of them, float64, or vectors of the `widths`; of a hashed
    feature rows, where it is hashed twice those of the second table under NAME__2."""
    arrays: dict[str, pa.Array] = {}
    for name, feature in features.items():
        arrays |= _arrays(table, name, feature, widths)
    return arrays


def _arrays(
    table: Table, name: str, feature: Feature, widths: Mapping[str, int]
) -> dict[str, pa.Array]:
    if feature.kind == "numeric":
        return {name: table.numbers(name).cast(pa.float64(), safe=False)}
    if feature.kind == "vector":
        return {name: _vectors(table, name, feature.separator, widths[name])}
    is_multi = feature.kind == "multi"
    values = _lists(table, name, feature.separator) if is_multi else table.column(name)
    return {name: values} if feature.hash is None else hashed_feature(name, values, feature.hash)


def hashed_feature(name: str, values: pa.Array, hash: Hash) -> dict[str, pa.Array]:
    """Single values or lists of them -> name -> rows in the same form, a name for each way."""
    is_list = pa.types.is_large_list(values.type)
    ways = hash_rows(values.values if is_list else values, hash)
    arrays = [pa.array(way, pa.int32()) for way in ways]
    if is_list:
        arrays = [pa.LargeListArray.from_arrays(values.offsets, way) for way in arrays]
    return dict(zip((name, name + SECOND_WAY), arrays, strict=False))


def encoded(array: pa.Array) -> pa.Array:
    """Plain values, or lists of them, with a dictionary."""
    if pa.types.is_large_list(array.type):
        return pa.LargeListArray.from_arrays(array.offsets, encoded(array.values))
    return pc.dictionary_encode(array)


def stored_features(
    arrays: Mapping[str, pa.Array], features: Mapping[str, Feature]
) -> dict[str, pa.Array]:
    """What `feature_arrays` gives as it is stored: plain values with a dictionary."""
    with_values = {
        name
        for name, feature in features.items()
        if feature.kind in ("categorical", "multi") and feature.hash is None
    }
    return {
        f"feature {name}": encoded(array) if name in with_values else array
        for name, array in arrays.items()
    }


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's lists."""
    checks = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(check(kind) for check in checks)


def _raw_lists(table: Table, name: str, separator: str | None) -> pa.Array:
    """(n,) lists as they are in the file, or what stands between separators."""
    if separator is not None:
        texts = pc.dictionary_encode(table.texts(name))
        return pc.split_pattern(texts.dictionary, separator).take(texts.indices)
    column = table.raw(name)
    if pa.types.is_null(column.type):  # as in a part of a folder
        return column.cast(pa.list_(pa.string()))
    if not is_list(column.type) or pa.types.is_nested(column.type.value_type):
        what = f"column '{name}' holds {column.type}; lists of single values are needed"
        raise UserError(f"{table.path}: {what}, or texts and a separator")
    return column


def _sizes(lists: pa.Array) -> NDArray[np.int64]:
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)


def _lists(table: Table, name: str, separator: str | None) -> pa.LargeListArray:
    """(n,) lists of plain values; none of them empty, and no list null."""
    lists = _raw_lists(table, name, separator)
    values = plain(pc.list_flatten(lists))
    if separator is not None:
        values = plain(pc.utf8_trim_whitespace(values))
    is_known = values.is_valid().to_numpy(zero_copy_only=False)
    owner = np.repeat(np.arange(len(lists)), _sizes(lists))[is_known]
    offsets = np.searchsorted(owner, np.arange(len(lists) + 1))
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values.drop_null())


def vector_width(table: Table, name: str, separator: str | None) -> int | None:
    """How many numbers the first vector has; None where there is none."""
    sizes = _sizes(_raw_lists(table, name, separator))
    return next((int(size) for size in sizes[sizes > 0]), None)


def _vectors(table: Table, name: str, separator: str | None, width: int) -> pa.Array:
    """(n,) lists of `width` float32; zeros where there is no vector."""
    lists = _raw_lists(table, name, separator)
    sizes, values = _sizes(lists), plain(pc.list_flatten(lists))
    owner = np.repeat(np.arange(len(lists)), sizes)
    numbers = _finite(table, name, values)
    bad = np.flatnonzero(np.isnan(numbers))
    rows, first = np.unique(owner[bad], return_index=True)
    place = np.full(len(lists), -1)
    place[rows] = bad[first]
    is_broken = pa.array(place >= 0)
    shown = values.take(pa.array(place, mask=place < 0))
    table.without(shown, is_broken, name, lambda v: f"'{v or ''}' is not a finite number")
    is_wrong = pa.array((sizes > 0) & (sizes != width))
    what = f"numbers where others have {width}; vectors are equally long"
    table.without(pa.array(sizes), is_wrong, name, lambda size: f"has {size} {what}")
    is_there = (sizes == width) & (place < 0)
    vectors = np.zeros((len(lists), width), np.float32)
    vectors[is_there] = numbers[is_there[owner]].reshape(-1, width)
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width)


def _finite(table: Table, name: str, values: pa.Array) -> NDArray[np.float64]:
    """NaN where a value is no finite number."""
    numbers = to_numbers(values)
    if numbers is None:
        raise UserError(f"{table.path}: column '{name}' holds lists of {values.type}, not numbers")
    found = numbers.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.where(np.abs(found) <= LARGEST_FLOAT32, found, np.nan)
