"""Rows of columns as a `KeyedJaggedTensor`: numpy in, tensors out, no loop over rows."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from flm_torchrec.data.dataset import Column, Entity


class ContextReader:
    """The context of rows of a log. Columns of one value a row are read row by row, which is
    several times faster than one column after the other."""

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self.columns = columns
        self.rows: NDArray[np.integer] | None = None
        if columns and all(column.offsets is None for column in columns.values()):
            self.rows = _side_by_side([column.values for column in columns.values()])

    def kjt(self, rows: NDArray[np.int64]) -> KeyedJaggedTensor | None:
        """The features of `rows` (B,), one key a column, stride B; None without columns."""
        if self.rows is None:
            return features_kjt(self.columns, rows) if self.columns else None
        values = self.rows.take(rows, axis=0, mode="clip").T.astype(np.int64, order="C")
        # No torch.ones: a parallel operation in a worker thread starts a second pool of threads,
        # which slows the training step down by a third.
        return KeyedJaggedTensor(
            keys=list(self.columns),
            values=torch.from_numpy(values.reshape(-1)),
            lengths=torch.from_numpy(np.ones(values.size, dtype=np.int32)),
        )


def _side_by_side(columns: Sequence[NDArray[np.integer]]) -> NDArray[np.integer]:
    """(n, F) the columns; not copied where they lie so already, as `prepare` leaves them."""
    first, size = columns[0], columns[0].itemsize
    start = first.ctypes.data
    is_there = all(
        column.ctypes.data == start + place * size
        and column.dtype == first.dtype
        and column.strides == (len(columns) * size,)
        for place, column in enumerate(columns)
    )
    if not is_there:
        return np.stack(columns, axis=1)
    shape, strides = (len(first), len(columns)), (first.strides[0], size)
    return np.lib.stride_tricks.as_strided(first, shape, strides)


def features_kjt(columns: Mapping[str, Column], rows: NDArray[np.int64]) -> KeyedJaggedTensor:
    """The features of `rows` (B,), one key a column, stride B."""
    num_rows = len(rows)
    # Copied once, into their place: most columns have one value a row.
    lengths = np.ones((len(columns), num_rows), dtype=np.int32)
    places = []
    for key, column in enumerate(columns.values()):
        if column.offsets is None:
            places.append(rows)
            continue
        start = column.offsets[rows]
        length = column.offsets[rows + 1] - start
        begin = np.cumsum(length) - length
        lengths[key] = length
        places.append(np.arange(int(length.sum())) + np.repeat(start - begin, length))
    values = np.empty(sum(len(place) for place in places), dtype=np.int64)
    end = 0
    for column, place in zip(columns.values(), places, strict=True):
        start, end = end, end + len(place)
        # `take` is twice as fast as an index, but copies a column that lies among others whole.
        # No place is outside, so none is clipped.
        is_alone = column.values.flags.c_contiguous
        found = column.values.take(place, mode="clip") if is_alone else column.values[place]
        values[start:end] = found
    return KeyedJaggedTensor(
        keys=list(columns),
        values=torch.from_numpy(values),
        lengths=torch.from_numpy(lengths.reshape(-1)),
    )


def user_features(
    users: Entity, rows: NDArray[np.int64], is_hidden: NDArray[np.bool_] | None
) -> KeyedJaggedTensor:
    """The features of `rows` (B,), the ids of those that are hidden as of unknown users."""
    kjt = features_kjt(users.columns, rows)
    if is_hidden is not None:
        # Where a user has no id, as that of another domain, none is put.
        for name in list(users.columns)[: users.num_ids]:
            lengths, values = kjt[name].lengths().numpy(), kjt[name].values().numpy()
            values[is_hidden.repeat(lengths)] = 0
    return kjt


def joined(first: KeyedJaggedTensor, second: KeyedJaggedTensor) -> KeyedJaggedTensor:
    """The rows of one, then those of another with the same keys."""
    keys = first.keys()
    assert keys == second.keys()
    parts = [kjt[key] for key in keys for kjt in (first, second)]
    # In numpy: as for torch.ones above.
    values = np.concatenate([part.values().numpy() for part in parts])
    lengths = np.concatenate([part.lengths().numpy() for part in parts])
    return KeyedJaggedTensor(
        keys=keys, values=torch.from_numpy(values), lengths=torch.from_numpy(lengths)
    )
