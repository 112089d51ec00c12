"""The `by_user` sampler: which users a step sees, and which window of each one's sequence."""

from dataclasses import dataclass

import numpy as np

from flm_torchrec.data.dataset import Interactions


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """Each user's events in order, as positions in the interactions; row 0 has none."""

    events: np.ndarray  # (n,) int64, positions in `Interactions`, grouped by user, in time order
    offsets: np.ndarray  # (num_users + 1,) int64


def sequences(interactions: Interactions, *, before_part: int) -> Sequences:
    """The events of every part before `before_part` (1: training; 2: with validation)."""
    is_kept = interactions.part < before_part
    ends = np.concatenate([[0], np.cumsum(is_kept)])
    return Sequences(
        events=np.flatnonzero(is_kept),
        offsets=ends[np.asarray(interactions.user_offsets)].astype(np.int64),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """One window for each of U users: `length` events from `first` on, of a sequence of `total`.

    Where `is_reversed`, positions count from the sequence's end backwards.
    """

    user: np.ndarray  # (U,) int64
    first: np.ndarray  # (U,) int64
    length: np.ndarray  # (U,) int64
    total: np.ndarray  # (U,) int64
    is_reversed: np.ndarray  # (U,) bool

    def positions(self, first: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(U,), (U,) -> for every event of the ranges: its window (n,), its place in time (n,)."""
        window = np.repeat(np.arange(len(self.user)), length)
        start = np.cumsum(length) - length
        place = np.arange(len(window)) - start[window] + first[window]
        backwards = self.total[window] - 1 - place
        return window, np.where(self.is_reversed[window], backwards, place)


def last_windows(seqs: Sequences, user: np.ndarray, window: int) -> Windows:
    """The latest `window` events of each user, as serving and evaluation see them."""
    total = seqs.offsets[user + 1] - seqs.offsets[user]
    length = np.minimum(total, window)
    return Windows(
        user=user,
        first=total - length,
        length=length,
        total=total,
        is_reversed=np.zeros(len(user), dtype=bool),
    )


class UserSampler:
    """Windows for a step, a pure function of (seed, step): equal on every rank.

    Each epoch visits every user with events once, in a new order; users that don't fill the last
    step of an epoch wait for the next one. A user with more than `window` events shows a random
    stretch of them; a share `reverse` of the windows runs backwards in time.
    """

    def __init__(
        self, seqs: Sequences, *, users: int, window: int, reverse: float, seed: int
    ) -> None:
        self.seqs = seqs
        self.users = users
        self.window = window
        self.reverse = reverse
        self.seed = seed
        self.eligible = np.flatnonzero(np.diff(seqs.offsets) > 0)
        self.steps_per_epoch = len(self.eligible) // users
        assert self.steps_per_epoch > 0, "more users a step than users with events"
        self._order_of = -1, self.eligible  # the epoch asked for last, and its order

    def _order(self, epoch: int) -> np.ndarray:
        """The users of an epoch, drawn once for all its steps."""
        if self._order_of[0] != epoch:
            rng = np.random.default_rng((self.seed, 0, epoch))
            self._order_of = epoch, rng.permutation(self.eligible)
        return self._order_of[1]

    def __call__(self, step: int) -> Windows:
        epoch, place = divmod(step, self.steps_per_epoch)
        user = self._order(epoch)[place * self.users : (place + 1) * self.users]
        rng = np.random.default_rng((self.seed, 1, step))
        total = self.seqs.offsets[user + 1] - self.seqs.offsets[user]
        length = np.minimum(total, self.window)
        return Windows(
            user=user,
            first=rng.integers(0, total - length + 1),
            length=length,
            total=total,
            is_reversed=rng.random(len(user)) < self.reverse,
        )
