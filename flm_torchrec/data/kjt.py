"""Rows of columns as a `KeyedJaggedTensor`: numpy in, tensors out, no loop over rows."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from flm_torchrec.data.dataset import Column


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
        values[start:end] = column.values[place]
    return KeyedJaggedTensor(
        keys=list(columns),
        values=torch.from_numpy(values),
        lengths=torch.from_numpy(lengths.reshape(-1)),
    )
