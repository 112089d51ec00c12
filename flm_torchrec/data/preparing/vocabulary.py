"""What is fitted on training: which value has which row of an embedding table, and how a number
is scaled. Row 0 is unknown."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pandas.core.util.hashing import hash_array

from flm_torchrec.data.compute import pc
from flm_torchrec.data.schema import Hash

_MOST_POINTS = 256


def hashed(values: pa.Array) -> NDArray[np.uint64]:
    """(n,) a 64-bit hash of each value's text; 0 = missing."""
    encoded = pc.dictionary_encode(values)
    texts = encoded.dictionary.cast(pa.large_string()).to_numpy(zero_copy_only=False)
    hashes = np.append(hash_array(texts.astype(object), categorize=False), np.uint64(0))
    return hashes[pc.fill_null(encoded.indices, len(texts)).to_numpy()]


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """Distinct values; the value at place i has row i + 1."""

    values: pa.Array

    @classmethod
    def fit(cls, values: pa.Array) -> "Vocabulary":
        """The distinct `values`, sorted; null is none of them."""
        known = pc.unique(values.drop_null())
        return cls(known.take(pc.sort_indices(known)))

    def grow(self, values: pa.Array) -> "Vocabulary":
        """With those of `values` that are new, sorted, behind the old ones, whose rows stay."""
        old, values = of_one_type(self.values, values)
        new = Vocabulary.fit(values).values
        return Vocabulary(pa.concat_arrays([old, new.filter(pc.index_in(new, old).is_null())]))

    @property
    def num_embeddings(self) -> int:
        """Rows that the table needs, the unknown one included."""
        return len(self.values) + 1

    def rows(self, values: pa.Array) -> NDArray[np.int64]:
        """(n,) row of each value; 0 for null and for what the vocabulary lacks."""
        values, known = of_one_type(values, self.values)
        place = pc.fill_null(pc.index_in(values, known), -1)
        return place.to_numpy(zero_copy_only=False).astype(np.int64) + 1

    def table(self) -> pa.Table:
        """What `of` reads."""
        return pa.table({"value": self.values})

    @classmethod
    def of(cls, table: pa.Table) -> "Vocabulary":
        """The vocabulary that was made a `table`."""
        return cls(table["value"].combine_chunks())


def of_one_type(one: pa.Array, other: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Both as they are, or both as texts."""
    if one.type == other.type:
        return one, other
    return one.cast(pa.large_string()), other.cast(pa.large_string())


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

    def table(self) -> pa.Table:
        """What `of` reads."""
        return pa.table({"edge": self.edges})

    @classmethod
    def of(cls, table: pa.Table) -> "Buckets":
        """The buckets that were made a `table`."""
        return cls(table["edge"].to_numpy())


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """Numbers by their rank among the training values: the least is -1, the greatest 1."""

    points: NDArray[np.float64]  # quantiles, in rising order
    ranks: NDArray[np.float64]  # within [-1, 1]

    @classmethod
    def fit(cls, values: NDArray[np.float64]) -> "Scale":
        """The quantiles of `values` (NaN = missing); one that repeats has its mean rank."""
        known = values[~np.isnan(values)]
        if len(known) == 0:
            return cls(np.empty(0), np.empty(0))
        share = np.linspace(0, 1, min(_MOST_POINTS, max(2, len(known))))
        quantiles = np.quantile(known, share, method="nearest")
        points, place, counts = np.unique(quantiles, return_inverse=True, return_counts=True)
        return cls(points, 2 * np.bincount(place, share) / counts - 1)

    def scaled(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """(n,) within [-1, 1]; 0 for NaN."""
        if len(self.points) == 0:
            return np.zeros(len(values), np.float32)
        ranks = np.interp(values, self.points, self.ranks)
        return np.where(np.isnan(values), 0, ranks).astype(np.float32)

    def table(self) -> pa.Table:
        """What `of` reads."""
        return pa.table({"point": self.points, "rank": self.ranks})

    @classmethod
    def of(cls, table: pa.Table) -> "Scale":
        """The scale that was made a `table`."""
        return cls(table["point"].to_numpy(), table["rank"].to_numpy())


def hash_rows(values: pa.Array, hash: Hash) -> list[NDArray[np.int64]]:
    """(n,) rows of each of `hash.ways` tables, by the hash of a value's text; 0 for null."""
    hashes, is_known = hashed(values), values.is_valid().to_numpy(zero_copy_only=False)
    size = np.uint64(hash.rows)
    rows = [hashes % size] if hash.ways == 1 else list(np.divmod(hashes % (size * size), size))
    return [np.where(is_known, way.astype(np.int64) + 1, 0) for way in rows]
