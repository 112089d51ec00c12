"""What is fitted on training: which value has which row of an embedding table. Row 0 is unknown."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.compute import pc


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """Distinct values in order; the value at place i has row i + 1."""

    values: pa.Array

    @classmethod
    def fit(cls, values: pa.Array) -> "Vocabulary":
        """The distinct `values`, sorted; null is none of them."""
        known = pc.unique(values.drop_null())
        return cls(known.take(pc.sort_indices(known)))

    @property
    def num_embeddings(self) -> int:
        """Rows that the table needs, the unknown one included."""
        return len(self.values) + 1

    def rows(self, values: pa.Array) -> NDArray[np.int64]:
        """(n,) row of each value; 0 for null and for what the vocabulary lacks."""
        place = pc.fill_null(pc.index_in(values, self.values), -1)
        return place.to_numpy(zero_copy_only=False).astype(np.int64) + 1


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """Intervals of about equally many values; the one below edges[0] has row 1."""

    edges: NDArray[np.float64]

    @classmethod
    def fit(cls, values: NDArray[np.float64], buckets: int) -> "Buckets":
        """Quantiles of `values` (NaN = missing); fewer than `buckets` where values repeat."""
        known = values[~np.isnan(values)]
        if len(known) == 0:
            return cls(np.empty(0))
        inner = np.arange(1, buckets) / buckets
        edges = np.unique(np.quantile(known, inner, method="lower"))
        return cls(edges[edges > known.min()])

    @property
    def num_embeddings(self) -> int:
        """Rows that the table needs, the unknown one included."""
        return len(self.edges) + 2

    def rows(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """(n,) row of each value; 0 for NaN."""
        rows = np.searchsorted(self.edges, values, side="right") + 1
        return np.where(np.isnan(values), 0, rows)
