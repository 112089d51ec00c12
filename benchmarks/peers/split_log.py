"""A split data set as every peer reads it: one npz, of numpy alone.

Row numbers are those of our prepared data: 0 is the unknown user or item, which nobody has met.

Example:
    log = SplitLog.read(Path("data/quality/ml-100k/last/splits/leave_one_out.npz"))
    train = log.matrix(log.part == TRAIN)  # users x items
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

TRAIN, VALIDATION, TEST = 0, 1, 2
CLICKS = (0, 1, 3, 5)  # after which cold users are recommended something


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitLog:
    """Interactions by (user, time, order), and what is known of users and items beside them."""

    user: NDArray[np.int64]  # (n,)
    item: NDArray[np.int64]  # (n,)
    time: NDArray[np.int64]  # (n,) seconds
    order: NDArray[np.int64]  # (n,) row in the source
    part: NDArray[np.int8]  # (n,) TRAIN, VALIDATION or TEST
    like: NDArray[np.float32]  # (n,) 0 or 1
    rating: NDArray[np.float32]  # (n,)
    num_users: int  # rows, the unknown one included
    num_items: int
    user_features: sparse.csr_matrix  # (num_users, Fu) 0 or 1: the values of their features
    item_features: sparse.csr_matrix  # (num_items, Fi)
    item_numbers: NDArray[np.float32]  # (num_items, Fn) scaled to [-1, 1]
    item_text: NDArray[np.float32]  # (num_items, d) of a frozen text encoder
    title: NDArray[np.str_]  # (num_items,)

    @classmethod
    def read(cls, file: Path) -> "SplitLog":
        """What `write` wrote."""
        with np.load(file) as arrays:
            given: dict[str, Any] = dict(arrays)
        for name in ("num_users", "num_items"):
            given[name] = int(given[name])
        for name in ("user_features", "item_features"):
            shape, indptr, indices = (given.pop(f"{name}_{key}") for key in _OF_MATRIX)
            ones = np.ones(len(indices), np.float32)
            given[name] = sparse.csr_matrix((ones, indices, indptr), shape=tuple(shape))
        return cls(**given)

    def write(self, file: Path) -> None:
        """As one npz without pickles."""
        arrays: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, sparse.csr_matrix):
                of_matrix = np.array(value.shape), value.indptr, value.indices
                arrays |= {f"{name}_{k}": v for k, v in zip(_OF_MATRIX, of_matrix, strict=True)}
            else:
                arrays[name] = value
        np.savez_compressed(file, **arrays)

    def matrix(self, is_wanted: NDArray[np.bool_]) -> sparse.csr_matrix:
        """(num_users, num_items) float32, 1 where the user met the item in a wanted row (n,)."""
        rows, columns = self.user[is_wanted], self.item[is_wanted]
        shape = self.num_users, self.num_items
        met = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=shape)
        met.data[:] = 1  # met twice counts once
        return met

    def events_before(self) -> NDArray[np.int64]:
        """(n,) how many interactions of the same user stand before each."""
        first = np.searchsorted(self.user, self.user)  # the users are sorted
        return np.arange(len(self.user)) - first


_OF_MATRIX = ("shape", "indptr", "indices")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Search:
    """Which interactions are known, and which are to be found among which items."""

    known: NDArray[np.bool_]  # (n,) never recommended again
    history: NDArray[np.bool_]  # (n,) what is known to tell the user's taste by
    wanted: NDArray[np.bool_]  # (n,) to be found
    candidates: NDArray[np.bool_]  # (num_items,) what may be recommended


Searching = Callable[[SplitLog, int], Search]  # a log and a part of it


def next_items(log: SplitLog, part: int) -> Search:
    """Find what each user met in `part`, knowing all parts before."""
    known, candidates = log.part < part, np.arange(log.num_items) > 0
    return Search(known=known, history=known, wanted=log.part == part, candidates=candidates)


def earlier(log: SplitLog, part: int) -> Search:
    """The same, by nothing that carries the time of what is to be found, or a later one."""
    search = next_items(log, part)
    first = np.full(log.num_users, np.iinfo(np.int64).max)
    np.minimum.at(first, log.user[search.wanted], log.time[search.wanted])
    return replace(search, history=search.known & (log.time < first[log.user]))


def cold_items(log: SplitLog, part: int) -> Search:
    """Find which of the items of `part`, that nobody has met, each user met."""
    known, wanted = log.part < part, log.part == part
    candidates = np.zeros(log.num_items, bool)
    candidates[log.item[wanted]] = True
    return Search(known=known, history=known, wanted=wanted, candidates=candidates)


def cold_users(clicks: int) -> Searching:
    """Find what the users of `part` met after their first `clicks`, knowing these and all of the
    parts before."""

    def search(log: SplitLog, part: int) -> Search:
        is_early = log.events_before() < clicks
        known = (log.part < part) | ((log.part == part) & is_early)
        return Search(
            known=known,
            history=known,
            wanted=(log.part == part) & ~is_early,
            candidates=np.arange(log.num_items) > 0,
        )

    return search
