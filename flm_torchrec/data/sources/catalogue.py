"""Invented users and items: hidden factors, and the columns and words that carry them."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.schema import EntitySchema, Feature, ItemSchema
from flm_torchrec.data.sources.planted import Floats, words

WIDTH = 4  # of the factors
SEGMENTS, CLUSTERS, STYLES, BRANDS = 12, 20, 10, 100
_WORDS = 6  # of each cluster and of each style
_FILLERS = 200  # words that say nothing
_ALONE = 0.15  # of the factors, what no column or word carries

USERS = EntitySchema(
    id="user_id",
    features={
        "segment": Feature(kind="categorical"),
        "gender": Feature(kind="categorical"),
        "age": Feature(kind="numeric", buckets=8),
    },
)
ITEMS = ItemSchema(
    id="item_id",
    features={
        "category": Feature(kind="categorical"),
        "brand": Feature(kind="categorical"),
        "price": Feature(kind="numeric", buckets=10),
    },
    text={"title": "{title}"},
)


class Users:
    """U users; ids count from 1."""

    def __init__(self, rng: np.random.Generator, count: int) -> None:
        self.segment = rng.integers(0, SEGMENTS, count)  # (U,)
        self.gender = rng.integers(0, 2, count)
        self.age = rng.integers(16, 80, count)
        young_to_old = ((self.age - 48) / 32)[:, None]
        self.factor: Floats = (  # (U, WIDTH)
            rng.standard_normal((SEGMENTS, WIDTH))[self.segment]
            + 0.6 * rng.standard_normal((2, WIDTH))[self.gender]
            + 0.6 * rng.standard_normal(WIDTH) * young_to_old
            + _ALONE * rng.standard_normal((count, WIDTH))
        ).astype(np.float32)

    def table(self) -> pa.Table:
        """The users' file."""
        return pa.table(
            {
                "user_id": pa.array(np.arange(1, len(self.age) + 1)),
                "segment": _texts("segment", self.segment),
                "gender": pa.array(np.array(["F", "M"], dtype=object)[self.gender]),
                "age": pa.array(self.age),
            }
        )


class Items:
    """M items; ids count from 1. The clusters' items take turns: row r is of cluster r % clusters,
    which the items' category names; the styles are told by titles alone."""

    def __init__(self, rng: np.random.Generator, count: int) -> None:
        self.clusters = min(CLUSTERS, count)
        self.cluster = np.arange(count) % self.clusters  # (M,)
        self.style = rng.integers(0, STYLES, count)
        self.brand = rng.integers(0, BRANDS, count)
        self.log_price = rng.normal(3.0, 1.0, count).astype(np.float32)
        self.centre = rng.standard_normal((self.clusters, WIDTH)).astype(np.float32)
        self.factor: Floats = (  # (M, WIDTH)
            self.centre[self.cluster]
            + 0.3 * rng.standard_normal((STYLES, WIDTH))[self.style]
            + _ALONE * rng.standard_normal((count, WIDTH))
        ).astype(np.float32)
        self.quality: Floats = (  # (M,)
            rng.standard_normal(BRANDS)[self.brand] + 0.2 * rng.standard_normal(count)
        ).astype(np.float32)
        self.title = self._titles(rng)

    def _titles(self, rng: np.random.Generator) -> NDArray[np.object_]:
        """Two words of the cluster, one of the style and one that says nothing, in any order."""
        vocabulary = words(rng, (self.clusters + STYLES) * _WORDS + _FILLERS)
        of_cluster = rng.permuted(np.tile(np.arange(_WORDS), (len(self.cluster), 1)), axis=1)[:, :2]
        of_style = rng.integers(0, _WORDS, len(self.style))
        filler = len(vocabulary) - 1 - rng.integers(0, _FILLERS, len(self.style))
        chosen = np.stack(
            [
                *(self.cluster[:, None] * _WORDS + of_cluster).T,
                (self.clusters + self.style) * _WORDS + of_style,
                filler,
            ],
            axis=1,
        )
        first, *rest = vocabulary[rng.permuted(chosen, axis=1)].T
        for words_of in rest:
            first = first + " " + words_of
        return first

    def table(self) -> pa.Table:
        """The items' file."""
        return pa.table(
            {
                "item_id": pa.array(np.arange(1, len(self.cluster) + 1)),
                "title": pa.array(self.title),
                "category": _texts("category", self.cluster),
                "brand": _texts("brand", self.brand),
                "price": pa.array(np.round(np.exp(self.log_price.astype(np.float64)), 2)),
            }
        )


def _texts(name: str, codes: NDArray[np.int64]) -> pa.Array:
    """(n,) codes as "name code"."""
    names = pa.array([f"{name} {code}" for code in range(codes.max() + 1)])
    return names.take(pa.array(codes))
