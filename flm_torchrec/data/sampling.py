"""What a step sees: windows of users' sequences (`by_user`) or rows of a log (`by_log`)."""

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flm_torchrec.data.dataset import Interactions

Rows = NDArray[np.int64]
# A log is read in blocks of consecutive rows; rows are shuffled within a window of blocks.
_BLOCK_ROWS = 4096
_WINDOW_BLOCKS = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sequences:
    """Each user's interactions in order, as positions in the interactions; user 0 is unknown."""

    events: Rows  # (m,) positions in `Interactions`, grouped by user, in time order
    offsets: Rows  # (num_users + 1,)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histories(Sequences):
    """The events of users' histories, of which an interaction sees those behind it."""

    kept: Rows  # (all events + 1,) of the first i events of all parts, how many are among these
    all_offsets: Rows  # (num_users + 1,) of the events of all parts

    def behind(self, interactions: Interactions, rows: Rows) -> Rows:
        """(n,) interactions -> how many of their user's events here each has behind it."""
        start = self.all_offsets[interactions.user[rows]]
        return self.kept[start + interactions.before[rows]] - self.kept[start]


def some_of(rows: Rows, count: int, rng: np.random.Generator, *, fill: int) -> Rows:
    """`count` distinct ones of `rows`; where there are fewer, `fill` fills up."""
    some = rng.choice(rows, size=min(count, len(rows)), replace=False)
    return np.pad(some, (0, count - len(some)), constant_values=fill)


def histories(interactions: Interactions, *, before_part: int) -> Histories:
    """The history events of every part before `before_part` (1: training; 2: with validation)."""
    return histories_where(interactions, interactions.part < before_part)


def histories_where(interactions: Interactions, is_wanted: NDArray[np.bool_]) -> Histories:
    """The history events among the interactions where `is_wanted` (n,)."""
    is_kept = is_wanted[interactions.events]
    kept = np.concatenate([[0], np.cumsum(is_kept)])
    return Histories(
        events=np.asarray(interactions.events)[is_kept],
        offsets=kept[interactions.user_offsets],
        kept=kept,
        all_offsets=np.asarray(interactions.user_offsets),
    )


def sequences(interactions: Interactions, *, before_part: int) -> Sequences:
    """All interactions of every part before `before_part`, in a history or not.

    The interactions must be sorted by user, as with `order: by_user`.
    """
    events = np.flatnonzero(interactions.part < before_part)
    users = np.arange(len(interactions.user_offsets))
    return Sequences(events=events, offsets=np.searchsorted(interactions.user[events], users))


def visits(seqs: Sequences, window: int) -> Rows:
    """(num_users,) how many windows an epoch shows of each user: as many as hold all events."""
    return -(-np.diff(seqs.offsets) // window)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """One window for each of U users: `length` events from `first` on, of a sequence of `total`.

    Where `is_reversed`, positions count from the sequence's end backwards.
    """

    user: Rows  # (U,)
    first: Rows  # (U,)
    length: Rows  # (U,)
    total: Rows  # (U,)
    is_reversed: NDArray[np.bool_]  # (U,)
    # (U, L) what events of one second are put in order by; None: as they stand in the data.
    tie_order: NDArray[np.float64] | None = None
    # An event is foretold from one of the `ahead` places up to its own; (U, L) in [0, 1): which.
    ahead: int = 1
    lag: NDArray[np.float64] | None = None
    is_hidden: NDArray[np.bool_] | None = None  # (U,) is the user's id hidden?

    def part(self, rows: slice) -> "Windows":
        """Some of them."""
        own: dict[str, Any] = {
            field.name: value[rows]
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), np.ndarray)
        }
        return replace(self, **own)

    def positions(self, first: Rows, length: Rows) -> tuple[Rows, Rows]:
        """(U,), (U,) -> for every event of the ranges: its window (n,), its place in time (n,)."""
        window = np.repeat(np.arange(len(self.user)), length)
        start = np.cumsum(length) - length
        place = np.arange(len(window)) - start[window] + first[window]
        backwards = self.total[window] - 1 - place
        return window, np.where(self.is_reversed[window], backwards, place)


def windows_before(user: Rows, num_behind: Rows, window: int) -> Windows:
    """The latest `window` of the first `num_behind` (U,) events of each user (U,)."""
    length = np.minimum(num_behind, window)
    return Windows(
        user=user,
        first=num_behind - length,
        length=length,
        total=num_behind,
        is_reversed=np.zeros(len(user), dtype=bool),
    )


def last_windows(seqs: Sequences, user: Rows, window: int) -> Windows:
    """The latest `window` events of each user, as serving sees them."""
    return windows_before(user, seqs.offsets[user + 1] - seqs.offsets[user], window)


class UserSampler:
    """Windows for a step, a pure function of (seed, step): equal on every rank.

    Each epoch has a window of every user with events, in a new order; of a user with more than
    `window` events as many as would hold them all, each a random stretch of them. Windows that
    don't fill the last step of an epoch wait for the next one. A share `reverse` of the windows
    runs backwards in time. With `shuffle_ties` events of one second come in a new order each time.
    With `ahead` above 1 an event is foretold from any of so many places, those up to its own and
    the early ones more often (the dense all-action loss of Pancha et al., 2022, within a window).
    A share `hide_users` has no id.
    """

    def __init__(
        self,
        seqs: Sequences,
        *,
        users: int,
        window: int,
        reverse: float,
        shuffle_ties: bool = False,
        ahead: int = 1,
        hide_users: float = 0.0,
        seed: int,
    ) -> None:
        self.seqs = seqs
        self.shuffle_ties = shuffle_ties
        self.ahead = ahead
        self.hide_users = hide_users
        self.users = users
        self.window = window
        self.reverse = reverse
        self.seed = seed
        count = visits(seqs, window)
        self.shown = np.arange(len(count)).repeat(count)  # users, one for each window of an epoch
        self.steps_per_epoch = len(self.shown) // users
        assert self.steps_per_epoch > 0, "more users a step than windows of users with events"
        # Kept for the steps to come, also when several threads ask.
        self.order = lru_cache(maxsize=2)(self._order)

    def _order(self, epoch: int) -> Rows:
        """The users of an epoch's windows."""
        return np.random.default_rng((self.seed, 0, epoch)).permutation(self.shown)

    def drawn(self, step: int) -> Rows:
        """(U,) the users of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self.order(epoch)[place * self.users : (place + 1) * self.users]

    def __call__(self, step: int) -> Windows:
        user = self.drawn(step)
        rng = np.random.default_rng((self.seed, 1, step))
        total = self.seqs.offsets[user + 1] - self.seqs.offsets[user]
        length = np.minimum(total, self.window)
        return Windows(
            user=user,
            first=rng.integers(0, total - length + 1),
            length=length,
            total=total,
            is_reversed=rng.random(len(user)) < self.reverse,
            tie_order=rng.random((len(user), self.window)) if self.shuffle_ties else None,
            ahead=self.ahead,
            lag=rng.random((len(user), self.window)) if self.ahead > 1 else None,
            is_hidden=rng.random(len(user)) < self.hide_users if self.hide_users else None,
        )


class LogSampler:
    """Rows of a log for a step, a pure function of (seed, step): equal on every rank.

    `rows` (n,) are those to train on, `batch` of them a step over all ranks. Runs of `run`
    consecutive ones stay together, so that what was shown at once is mostly seen at once; where a
    run begins differs from epoch to epoch. Blocks of rows come in a new order each epoch and runs
    are shuffled within windows of blocks, so that a step touches a few parts of a long file only.
    """

    def __init__(self, rows: Rows, *, batch: int, run: int = 1, seed: int = 0) -> None:
        assert batch % run == 0, "a step holds whole runs"
        self.rows = rows
        self.batch = batch
        self.run = run
        self.seed = seed
        # Room is left to shift the first run, unless a step needs all.
        self.num_runs = max((len(rows) - run + 1) // run, min(batch, len(rows)) // run)
        self.steps_per_epoch = self.num_runs * run // batch
        assert self.steps_per_epoch > 0, "more rows a step than rows to train on"
        self.block = max(1, _BLOCK_ROWS // run)  # runs
        # Kept for the steps to come, also when several threads ask.
        self.blocks = lru_cache(maxsize=2)(self._blocks)
        self.window = lru_cache(maxsize=4)(self._window)

    def _blocks(self, epoch: int) -> Rows:
        """The order of the blocks of an epoch; the last, perhaps shorter, block stays last."""
        rng = np.random.default_rng((self.seed, 0, epoch))
        whole = self.num_runs // self.block
        return np.append(rng.permutation(whole), whole)

    def _window(self, epoch: int, window: int) -> Rows:
        """The runs of a window, shuffled."""
        own = slice(window * _WINDOW_BLOCKS, (window + 1) * _WINDOW_BLOCKS)
        first = self.blocks(epoch)[own] * self.block
        runs = (first[:, None] + np.arange(self.block)).reshape(-1)
        rng = np.random.default_rng((self.seed, 1, epoch, window))
        return rng.permutation(runs[runs < self.num_runs])

    def __call__(self, step: int) -> Rows:
        """-> (batch,) positions in the interactions, ascending"""
        epoch, place = divmod(step, self.steps_per_epoch)
        size = self.block * _WINDOW_BLOCKS
        start, stop = place * self.batch // self.run, (place + 1) * self.batch // self.run
        runs = np.concatenate(
            [
                self.window(epoch, w)[max(0, start - w * size) : stop - w * size]
                for w in range(start // size, -(-stop // size))
            ]
        )
        room = len(self.rows) - self.num_runs * self.run
        offset = np.random.default_rng((self.seed, 2, epoch)).integers(room + 1)
        return self.rows[np.sort((runs[:, None] * self.run + np.arange(self.run)).ravel()) + offset]
