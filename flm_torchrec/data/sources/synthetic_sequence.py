"""Synthetic sequences of what users took and rated: the next item depends on the latest one."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.schema import InteractionSchema, Schema
from flm_torchrec.data.sources.catalogue import ITEMS, USERS, Items, Users
from flm_torchrec.data.sources.folder import NewFolder, rating_labels
from flm_torchrec.data.sources.planted import BestAUC, Effects, Outcome, sigmoid, zipf

_ROWS = 1_000_000  # of a block, about
_FEWEST = 3  # interactions of a user, where there are enough for all
_START, _SPAN = 1_600_000_000, 300 * 86400  # seconds in which users begin
_GAP = 3600.0  # seconds between interactions of a user, on average
_ITEM_POWER = 0.8  # of how often the items of a cluster are taken
# How the next item is chosen: the one beside the latest; one of the cluster that follows the
# latest one's; one of a cluster the user likes; any.
_NEXT = {"beside": 0.3, "follows": 0.25, "liked": 0.35, "any": 0.1}
_LIKE = {"taste": 0.6, "quality": 0.25, "mood": 0.15}
_LIKE_RATE, _LIKE_AUC = 0.5, 0.78
_RATINGS = (-3.0, -1.5, 0.0, 1.5)  # latent values above which a rating is 2, 3, 4, 5

SCHEMA = Schema(
    users=USERS,
    items=ITEMS,
    interactions=InteractionSchema(
        user="user_id",
        item="item_id",
        time="timestamp",
        labels=rating_labels(),
    ),
)


class _World:
    """The hidden parameters that sequences and ratings are drawn by."""

    def __init__(self, rng: np.random.Generator, users: int, items: int) -> None:
        self.users, self.items = Users(rng, users), Items(rng, items)
        self.mood = rng.standard_normal(users).astype(np.float32)  # (U,) how kindly users rate
        clusters = self.items.clusters
        self.follows = rng.permutation(clusters)  # which cluster follows each
        # (clusters,) items of each
        self.sizes = np.bincount(self.items.cluster, minlength=clusters)
        user, item = rng.integers(0, users, 100_000), rng.integers(0, items, 100_000)
        sample = self.effects(user, item)
        self.like = Outcome(_LIKE, sample, rate=_LIKE_RATE, best_auc=_LIKE_AUC)

    def effects(self, user: NDArray[np.int64], item: NDArray[np.int64]) -> Effects:
        """(n,) rows of users and items -> what each cause adds to the logit of a like."""
        factors = self.users.factor[user], self.items.factor[item]
        return {
            "taste": np.einsum("nd,nd->n", *factors),
            "quality": self.items.quality[item],
            "mood": self.mood[user],
        }

    def sequences(self, rng: np.random.Generator, user: NDArray[np.int64]) -> NDArray[np.int64]:
        """user (n,) ascending, one row an interaction -> item (n,)"""
        own, first, lengths = np.unique(user, return_index=True, return_counts=True)
        order = np.argsort(-lengths, kind="stable")
        own, first, lengths = own[order], first[order], lengths[order]
        logits = self.users.factor[own] @ self.items.centre.T / 2
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        liked = (odds / odds.sum(axis=1, keepdims=True)).cumsum(axis=1)  # (users, clusters)
        item = np.empty(len(user), dtype=np.int64)
        latest = zipf(rng, len(self.items.cluster), len(own), _ITEM_POWER)
        for step in range(lengths[0]):
            active = int(np.searchsorted(-lengths, -step, "left"))  # users with more than `step`
            latest = self._next(rng, latest[:active], liked[:active])
            item[first[:active] + step] = latest
        return item

    def _next(
        self, rng: np.random.Generator, latest: NDArray[np.int64], liked: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """latest (n,), liked (n, clusters) cumulative -> (n,)"""
        count, clusters = len(latest), self.items.clusters
        cluster = self.items.cluster[latest]
        way = np.searchsorted(np.cumsum(list(_NEXT.values()))[:-1], rng.random(count), "right")
        is_beside, is_following, is_liked, _ = (way == place for place in range(len(_NEXT)))
        wanted = rng.integers(0, clusters, count)
        likes = (liked < rng.random((count, 1))).sum(axis=1).clip(max=clusters - 1)
        wanted = np.where(is_liked, likes, wanted)
        wanted = np.where(is_following, self.follows[cluster], wanted)
        # Row r is the item of rank r // clusters of cluster r % clusters.
        chosen = wanted + clusters * zipf(rng, self.sizes[wanted], count, _ITEM_POWER)
        beside = cluster + clusters * ((latest // clusters + 1) % self.sizes[cluster])
        return np.where(is_beside, beside, chosen)


def _lengths(rng: np.random.Generator, users: int, interactions: int) -> NDArray[np.int64]:
    """(U,) interactions of each user, `interactions` in all."""
    fewest = _FEWEST if interactions >= _FEWEST * users else 0
    weights = rng.gamma(2.0, size=users)
    lengths = fewest + (weights / weights.sum() * (interactions - fewest * users)).astype(int)
    lengths[: interactions - lengths.sum()] += 1
    return lengths


def _times(rng: np.random.Generator, user: NDArray[np.int64]) -> NDArray[np.int64]:
    """user (n,) ascending -> seconds (n,) that grow with each user's interactions."""
    _, first, place = np.unique(user, return_index=True, return_inverse=True)
    passed = np.cumsum(1 + rng.exponential(_GAP, len(user)).astype(np.int64))
    begin = _START + rng.integers(0, _SPAN, len(first))
    return passed - passed[first][place] + begin[place]


def write_sequence(
    folder: NewFolder, *, users: int, items: int, interactions: int, seed: int
) -> dict[str, Any]:
    """Fill `folder`; -> what is true of it."""
    rng = np.random.default_rng(seed)
    world = _World(rng, users, items)
    folder.add("users", world.users.table())
    folder.add("items", world.items.table())
    lengths = _lengths(rng, users, interactions)
    best = BestAUC()
    block = np.cumsum(lengths) // _ROWS
    for chosen in np.split(np.arange(users), np.flatnonzero(np.diff(block)) + 1):
        user = np.repeat(chosen, lengths[chosen])
        if not len(user):
            continue
        item = world.sequences(rng, user)
        logits = world.like.logits(world.effects(user, item))
        latent = logits + rng.logistic(size=len(user)).astype(np.float32)
        rating = 1 + np.searchsorted(_RATINGS, latent)
        is_last = np.append(user[1:] != user[:-1], True) & (lengths[user] >= _FEWEST)
        best.add(sigmoid(logits), rating >= 4, is_last)
        columns = {"user_id": user + 1, "item_id": item + 1, "rating": rating.astype(np.int8)}
        columns["timestamp"] = _times(rng, user)
        folder.add("interactions", pa.table(columns))
    folder.write_schema(SCHEMA)
    return {
        "best_auc": {"like": best.result()},
        "shares_of_variance": {"like": _LIKE},
        "next_item": _NEXT,
        "clusters": world.items.clusters,
    }
