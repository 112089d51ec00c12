"""Features as the model takes them, fitted on the rows of training."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.dataset import Column
from flm_torchrec.data.preparing.columns import Columns, Discrete
from flm_torchrec.data.preparing.features import SECOND_WAY
from flm_torchrec.data.preparing.fits import Fits
from flm_torchrec.data.schema import Feature


def fit_features(
    columns: Columns,
    features: Mapping[str, Feature],
    is_trained: NDArray[np.bool_],
    fits: Fits,
    owner: str,
) -> Iterator[tuple[str, Column | NDArray[np.float32]]]:
    """The features in their order, one at a time: columns with int32 values, numbers (n,) in
    [-1, 1], vectors (n, d). A numeric one with buckets is numbers, then a column."""
    for name, feature in features.items():
        stored, fitted = f"feature {name}", f"{owner}.{name}"
        if feature.kind == "numeric":
            numbers = columns.array(stored)
            yield name, fits.scale(fitted, numbers[is_trained]).scaled(numbers)
            if feature.buckets is not None:
                buckets = fits.buckets(fitted, numbers[is_trained], feature.buckets)
                rows = buckets.rows(numbers).astype(np.int32)
                yield name, Column(values=rows, offsets=None, num_embeddings=buckets.num_embeddings)
        elif feature.kind == "vector":
            yield name, columns.array(stored)
        elif feature.hash is not None:
            for way in ("", SECOND_WAY)[: feature.hash.ways]:
                rows, offsets = columns.lists(stored + way)
                size = feature.hash.rows + 1
                yield name + way, Column(values=rows, offsets=offsets, num_embeddings=size)
        else:
            yield name, _fit_discrete(columns.discrete(stored), is_trained, fits, fitted)


def _fit_discrete(found: Discrete, is_trained: NDArray[np.bool_], fits: Fits, name: str) -> Column:
    if found.offsets is not None:
        is_trained = np.repeat(is_trained, np.diff(found.offsets))
    vocabulary = fits.vocabulary(name, found.values.take(pa.array(seen(found, is_trained))))
    rows = np.append(vocabulary.rows(found.values), 0).astype(np.int32)  # -1 is the last
    return Column(
        values=rows[found.codes], offsets=found.offsets, num_embeddings=vocabulary.num_embeddings
    )


def seen(found: Discrete, where: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The places in `found.values` of the codes (nnz,) `where` it is true."""
    counts = np.bincount(found.codes[where] + 1, minlength=len(found.values) + 1)
    return np.flatnonzero(counts[1:])


def reordered(column: Column, order: NDArray[np.int64]) -> Column:
    """The rows of a column in another order."""
    if column.offsets is None:
        values, offsets = column.values[order], None
    else:
        sizes = np.diff(column.offsets)[order]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        shift = np.repeat(column.offsets[order] - offsets[:-1], sizes)
        values = column.values[np.arange(offsets[-1]) + shift]
    return Column(values=values, offsets=offsets, num_embeddings=column.num_embeddings)
