"""Negatives: the items every edge is scored against, and how often each is drawn."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class AllItems:
    """The whole catalogue: an exact softmax, no correction. Row 0, the unknown item, is in it."""

    num_items: int

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """-> rows (N,) int64, log of the expected number of draws (N,) float32"""
        del rng
        return np.arange(self.num_items), np.zeros(self.num_items, dtype=np.float32)


class PopularItems:
    """`count` draws with replacement, proportional to (training interactions) ** power.

    Items without any interaction count as one; power 0 is uniform.
    """

    def __init__(self, interactions_of: np.ndarray, *, count: int, power: float) -> None:
        weight = np.maximum(interactions_of, 1).astype(np.float64) ** power
        weight[0] = 0.0
        self.q = weight / weight.sum()
        self.cumulative = self.q.cumsum()
        self.count = count

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """-> rows (N,) int64, log(N q) (N,) float32"""
        rows = np.searchsorted(self.cumulative, rng.random(self.count), side="right")
        rows = rows.clip(1, len(self.q) - 1)
        return rows, np.log(self.count * self.q[rows]).astype(np.float32)
