"""Columns of a table that is held chunk by chunk, brought together one at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.compute import pc
from flm_torchrec.data.reading.tables import discrete_type


@dataclass(frozen=True, slots=True)
class Discrete:
    """A column of single values or of lists, as codes."""

    values: pa.Array  # distinct, sorted; int64 or large_string
    codes: NDArray[np.int32]  # (nnz,) places in `values`, -1 = missing
    offsets: NDArray[np.int64] | None = None  # (n + 1,) of lists


class Columns:
    """The columns of chunks as `log_chunk` describes them; `batches` gives the chunks anew."""

    def __init__(self, batches: Callable[[], Iterator[pa.RecordBatch]]) -> None:
        self._batches = batches
        self._sizes = [batch.num_rows for batch in batches()]
        self.num_rows = sum(self._sizes)

    def has(self, name: str) -> bool:
        """Whether there is such a column."""
        return name in next(self._batches()).schema.names

    def array(self, name: str) -> NDArray:
        """(n,) numbers with NaN where missing, or booleans; (n, d) of vectors."""
        parts = []
        for batch in self._batches():
            column = batch.column(name)
            if pa.types.is_fixed_size_list(column.type):
                flat = column.flatten().to_numpy(zero_copy_only=False)
                parts.append(flat.reshape(-1, column.type.list_size).copy())
            else:
                parts.append(np.array(column.to_numpy(zero_copy_only=False)))
        return np.concatenate(parts)

    def width(self, name: str) -> int:
        """How many numbers the vectors of a column have."""
        return next(self._batches()).schema.field(name).type.list_size

    def is_discrete(self, name: str) -> bool:
        """Whether a column holds plain values."""
        return pa.types.is_dictionary(next(self._batches()).schema.field(name).type)

    def discrete(self, name: str) -> Discrete:
        """A column of plain values or of lists of them."""
        values = self.distinct(name)
        values = values.cast(discrete_type(values))
        return self.coded(name, values.take(pc.sort_indices(values)))

    def distinct(self, name: str) -> pa.Array:
        """The distinct plain values; texts where chunks differ in type."""
        found = [pc.unique(_flat(batch.column(name)).dictionary) for batch in self._batches()]
        found = [values for values in found if len(values)] or found[:1]
        if len({values.type for values in found}) > 1:
            # A chunk of fractions may stand beside one of whole numbers.
            kinds = {discrete_type(values) for values in found}
            kind = kinds.pop() if len(kinds) == 1 else pa.large_string()
            found = [values.cast(kind) for values in found]
        return pc.unique(pa.concat_arrays(found)).drop_null()

    def coded(self, name: str, values: pa.Array) -> Discrete:
        """A column of plain values, or of lists of them, as places in `values`."""
        codes, sizes = [], [np.zeros(1, np.int64)]
        for batch in self._batches():
            column = batch.column(name)
            flat = _flat(column)
            places = pc.index_in(flat.dictionary.cast(values.type), values)
            rows = np.append(pc.fill_null(places, -1).to_numpy(), np.int32(-1))
            codes.append(rows[pc.fill_null(flat.indices, -1).to_numpy()])
            if flat is not column:
                sizes.append(pc.list_value_length(column).to_numpy())
        offsets = np.cumsum(np.concatenate(sizes)) if len(sizes) > 1 else None
        return Discrete(values, np.concatenate(codes), offsets)

    def lists(self, name: str) -> tuple[NDArray, NDArray[np.int64] | None]:
        """Numbers, single or in lists -> values (nnz,), offsets (n + 1,) or None."""
        values, sizes = [], [np.zeros(1, np.int64)]
        for batch in self._batches():
            column = batch.column(name)
            flat = _flat(column)
            values.append(np.array(flat.to_numpy()))
            if flat is not column:
                sizes.append(pc.list_value_length(column).to_numpy())
        return np.concatenate(values), np.cumsum(np.concatenate(sizes)) if len(sizes) > 1 else None

    def texts(self, name: str, rows: NDArray[np.int64]) -> list[str]:
        """The texts of some rows."""
        order, found, first = np.argsort(rows, kind="stable"), [], 0
        ends = np.searchsorted(rows[order], np.cumsum(self._sizes))
        for size, start, end, batch in zip(
            self._sizes, [0, *ends[:-1]], ends, self._batches(), strict=True
        ):
            found += batch.column(name).take(pa.array(rows[order[start:end]] - first)).to_pylist()
            first += size
        texts = np.empty(len(rows), dtype=object)
        texts[order] = found
        return texts.tolist()

    def is_there(self, name: str) -> NDArray[np.bool_]:
        """(n,) whether a value is there."""
        parts = [batch.column(name).is_valid() for batch in self._batches()]
        return np.concatenate([part.to_numpy(zero_copy_only=False) for part in parts])


def _flat(column: pa.Array) -> pa.Array:
    return column.flatten() if pa.types.is_large_list(column.type) else column
