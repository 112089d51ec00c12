"""Negatives: the items every edge is scored against, and how often each is drawn."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Draw = tuple[NDArray[np.int64], NDArray[np.float32]]


class Negatives(Protocol):
    """A draw of N catalogue rows; N is the same for every draw."""

    def draw(self, rng: np.random.Generator, met: NDArray[np.int64]) -> Draw:
        """met (n,) the items of the batch's positives -> rows (N,), log of the expected number of
        times each is drawn (N,)"""
        ...


@dataclass(frozen=True, slots=True)
class NoItems:
    """None at all: where nothing is ranked, or against what was shown."""

    def draw(self, rng: np.random.Generator, met: NDArray[np.int64]) -> Draw:
        """-> rows (0,), (0,)"""
        del rng, met
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllItems:
    """The whole catalogue: an exact softmax, no correction. Row 0, the unknown item, is in it."""

    num_items: int

    def draw(self, rng: np.random.Generator, met: NDArray[np.int64]) -> Draw:
        """-> rows (num_items,), zeros"""
        del rng, met
        return np.arange(self.num_items), np.zeros(self.num_items, dtype=np.float32)


class PopularItems:
    """`count` draws with replacement, proportional to (training interactions) ** power.

    Items without any interaction count as one; power 0 is uniform.
    """

    def __init__(self, interactions_of: NDArray, *, count: int, power: float) -> None:
        weight = np.maximum(interactions_of, 1).astype(np.float64) ** power
        weight[0] = 0.0
        self.q = weight / weight.sum()
        self.cumulative = self.q.cumsum()
        self.count = count

    def rows(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """-> (count,)"""
        rows = np.searchsorted(self.cumulative, rng.random(self.count), side="right")
        return rows.clip(1, len(self.q) - 1)

    def draw(self, rng: np.random.Generator, met: NDArray[np.int64]) -> Draw:
        """-> rows (count,), log(count q)"""
        del met
        rows = self.rows(rng)
        return rows, np.log(self.count * self.q[rows]).astype(np.float32)


class InBatchItems:
    """`count` draws with replacement from the items that the batch's users met.

    Over all batches an item is drawn as often as its share of the training interactions
    (Yi et al., 2019, correct in-batch negatives by the same q).
    """

    def __init__(self, interactions_of: NDArray, *, count: int) -> None:
        # An item is drawn from a batch that holds it: as if it had one interaction.
        weight = np.where(interactions_of > 0, interactions_of, 1.0)
        self.q = weight / max(1.0, interactions_of[1:].sum())
        self.count = count

    def rows(self, rng: np.random.Generator, met: NDArray[np.int64]) -> NDArray[np.int64]:
        """met (n,) -> (count,); nothing but the unknown item where nothing was met"""
        return rng.choice(met if len(met) else np.zeros(1, dtype=np.int64), size=self.count)

    def draw(self, rng: np.random.Generator, met: NDArray[np.int64]) -> Draw:
        """-> rows (count,), log(count q)"""
        rows = self.rows(rng, met)
        return rows, np.log(self.count * self.q[rows]).astype(np.float32)


class MixedItems:
    """Some from the catalogue, some from the batch; q is that of both together."""

    def __init__(self, popular: PopularItems, in_batch: InBatchItems) -> None:
        self.popular = popular
        self.in_batch = in_batch

    def draw(self, rng: np.random.Generator, met: NDArray[np.int64]) -> Draw:
        """-> rows (count,), log of the expected number of draws by either way"""
        rows = np.concatenate([self.popular.rows(rng), self.in_batch.rows(rng, met)])
        popular, in_batch = self.popular, self.in_batch
        expected = popular.count * popular.q[rows] + in_batch.count * in_batch.q[rows]
        return rows, np.log(expected).astype(np.float32)
