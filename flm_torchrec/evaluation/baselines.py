"""Recommenders that need no training loop: what any model has to beat.

All are fitted on training interactions alone. Item-item scores are then read off a history that
may be longer: for the test it is training and validation, which is what the model sees as well.

Example:
    train = items_of_users(user[part < VALIDATION], item[part < VALIDATION], num_users=944)
    history = items_of_users(user[part < TEST], item[part < TEST], num_users=944)
    result = evaluate(ease(train, history, num_items=1683), task, num_items=1683)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flm_torchrec.ease import ease_weights
from flm_torchrec.evaluation.ranking import ItemLists, Score


def _blocks(lists: ItemLists, num_items: int, size: int = 1024) -> Iterator[Tensor]:
    rows = np.arange(len(lists.offsets) - 1)
    for start in range(0, len(rows), size):
        yield lists.take(rows[start : start + size]).dense(num_items).float()


def _co_occurrence(train: ItemLists, num_items: int) -> Tensor:
    """(num_items, num_items) users who met both items; on the diagonal, users who met it."""
    counts = torch.zeros(num_items, num_items)
    for block in _blocks(train, num_items):
        counts.addmm_(block.T, block)
    return counts


def popularity(train: ItemLists, *, num_items: int) -> Score:
    """The number of users who met the item, the same for everybody."""
    counts = torch.zeros(num_items)
    for block in _blocks(train, num_items):
        counts += block.sum(0)
    return lambda users: counts.expand(len(users), -1)


def _item_to_item(weights: Tensor, history: ItemLists) -> Score:
    """weights (num_items, num_items): the sum of the rows of what the user has met."""
    num_items = len(weights)
    return lambda users: history.take(users).dense(num_items).float() @ weights


def item_knn(train: ItemLists, history: ItemLists, *, num_items: int) -> Score:
    """Sum of the cosines between the users of an item and those of each item of the history.

    All items are neighbours. Needs memory for num_items squared floats.
    """
    counts = _co_occurrence(train, num_items)
    scale = counts.diagonal().clamp(min=1).rsqrt()
    return _item_to_item((counts * scale[:, None] * scale).fill_diagonal_(0), history)


def ease(train: ItemLists, history: ItemLists, *, num_items: int, l2: float = 100.0) -> Score:
    """The linear item-item model without self-similarity (Steck, 2019), in closed form.

    Needs memory for a few times num_items squared floats, and num_items cubed operations.
    """
    return _item_to_item(ease_weights(_co_occurrence(train, num_items), l2), history)


def content_knn(vectors: Tensor, history: ItemLists) -> Score:
    """Sum of the cosines between the vectors (num_items, d) of an item and of the history's."""
    directions = torch.nn.functional.normalize(vectors.detach().float().cpu(), dim=1)
    num_items = len(directions)
    return lambda users: history.take(users).dense(num_items).float() @ directions @ directions.T


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BiasModel:
    """A rating is a mean plus what the user and the item add to it."""

    mean: float
    user: NDArray[np.float64]  # (num_users,); 0 without ratings
    item: NDArray[np.float64]  # (num_items,)

    @classmethod
    def fit(
        cls,
        user: NDArray[np.int64],
        item: NDArray[np.int64],
        value: NDArray[np.float32],
        *,
        num_users: int,
        num_items: int,
        l2: float = 2.0,
    ) -> "BiasModel":
        """Ridge regression of value (n,) on user (n,) and item (n,); nan values are left out."""
        is_there = np.isfinite(value)
        user, item, rest = user[is_there], item[is_there], value[is_there].astype(np.float64)
        mean = float(rest.mean()) if len(rest) else 0.0
        rest -= mean
        user_weight = np.bincount(user, minlength=num_users) + l2
        item_weight = np.bincount(item, minlength=num_items) + l2
        of_user, of_item = np.zeros(num_users), np.zeros(num_items)
        # The problem is convex: solving for one side at a time converges to the ridge solution.
        for _ in range(1000):
            before = of_item
            of_item = np.bincount(item, rest - of_user[user], num_items) / item_weight
            of_user = np.bincount(user, rest - of_item[item], num_users) / user_weight
            if np.abs(of_item - before).max() < 1e-5:
                break
        return cls(mean=mean, user=of_user, item=of_item)

    def predict(self, user: NDArray[np.int64], item: NDArray[np.int64]) -> Tensor:
        """Ratings of user (n,) for item (n,), float64 (n,)."""
        return torch.from_numpy(self.mean + self.user[user] + self.item[item])
