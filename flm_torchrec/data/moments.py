"""Users at moments of their histories, and the edges that stand there: what a batch is made of."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flm_torchrec.data.dataset import Interactions
from flm_torchrec.data.sampling import Histories, Rows, Sequences, Windows, windows_before

_NO_ROWS: Rows = np.zeros(0, dtype=np.int64)
_SESSION_PAUSE = 3600  # seconds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """U users, each at one moment, and what each had met by then."""

    user: Rows  # (U,)
    met: Rows  # (U, L) catalogue rows of the items, 0 where there is no event
    event: Rows  # (U, L) positions in the interactions; any where there is no event
    num_events: Rows  # (U,) they stand first
    known_user: Rows  # (S,) with known_item pairs met before the window, or at any time
    known_item: Rows  # (S,) catalogue rows
    is_hidden: NDArray[np.bool_] | None = None  # (U,) is the user's id hidden?


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EdgeRows:
    """E interactions, each at a moment; of padding, is_real is False."""

    row: Rows  # (E,) positions in the interactions
    is_real: NDArray[np.bool_]  # (E,)
    user: Rows  # (E,) row of the moments
    step: Rows  # (E,) events of the moment's window behind it
    impression: Rows  # (E,) what was shown at once has one number, below E
    is_ranked: NDArray[np.bool_]  # (E,) positives, with logged negatives those that have some
    num_ranked: int  # over all ranks
    everyone: Rows  # (n,) the real rows of all ranks
    capacity: int  # the most distinct items that edges and histories of a rank hold


class MomentFinder:
    """Histories of at most `window` events, among interactions of which some are events.

    Where `knows_met`, moments hold what was met before the window too; where `is_logged`,
    positives are ranked against what was shown beside them. With `any_order` an edge sees all
    other events of its user instead of the earlier ones: its step is the place of its own event,
    which the state is to leave out, or the number of events where its own is not among them.
    """

    def __init__(
        self,
        interactions: Interactions,
        *,
        window: int,
        knows_met: bool = False,
        is_logged: bool = False,
        has_items: bool = True,
        any_order: bool = False,
    ) -> None:
        self.interactions = interactions
        self.window = window
        self.knows_met = knows_met
        self.is_logged = is_logged
        self.has_items = has_items
        self.any_order = any_order
        self.is_event = np.zeros(len(interactions.user), dtype=bool)
        self.is_event[interactions.events] = True

    def moments(self, windows: Windows, seqs: Sequences) -> Moments:
        """The end of each window, with the events in it."""
        return self._moments(windows, seqs, *self._rows_in(windows, seqs))

    def _rows_in(self, windows: Windows, seqs: Sequences) -> tuple[Rows, Rows]:
        """The interactions in the windows: which window each is in (n,), and its row (n,)."""
        window, place = windows.positions(windows.first, windows.length)
        row = seqs.events[seqs.offsets[windows.user][window] + place]
        if windows.tie_order is not None:
            time = self.interactions.time[row]
            is_new = np.append(True, (np.diff(time) != 0) | (np.diff(window) != 0))[: len(row)]
            order = windows.tie_order[np.arange(self.window) < windows.length[:, None]]
            row = row[np.lexsort((order, is_new.cumsum()))]
        return window, row

    def _moments(self, windows: Windows, seqs: Sequences, window: Rows, row: Rows) -> Moments:
        """The same; row (n,) are the interactions in the windows, window (n,) which they are in."""
        # What enters no history leaves no gap.
        is_event = self.is_event[row]
        behind = np.append(np.cumsum(is_event) - is_event, 0)
        begin = np.cumsum(windows.length) - windows.length
        step = (behind[:-1] - behind[begin].repeat(windows.length))[is_event]
        unseen_in, unseen = window[~is_event], row[~is_event]
        window, row = window[is_event], row[is_event]
        shape = len(windows.user), self.window
        event, met = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        event[window, step] = row
        met[window, step] = self.interactions.item[row]
        known_user = known_item = _NO_ROWS
        if self.knows_met:
            known = windows.total if self.any_order else windows.first
            known_user, place = windows.positions(np.zeros_like(known), known)
            earlier = seqs.events[seqs.offsets[windows.user][known_user] + place]
            # What the window holds beside events has no step: it counts as met before all of them.
            known_user = np.append(known_user, unseen_in)
            known_item = self.interactions.item[np.append(earlier, unseen)]
        return Moments(
            user=windows.user,
            met=met,
            event=event,
            num_events=np.bincount(window, minlength=len(windows.user)),
            known_user=known_user,
            known_item=known_item,
            is_hidden=windows.is_hidden,
        )

    def of_windows(
        self, everyone: Windows, seqs: Sequences, rank: int, world_size: int
    ) -> tuple[Moments, EdgeRows]:
        """A rank's equal share of the windows, every interaction in them an edge at its own step,
        padded to `window` edges a user."""
        share = len(everyone.user) // world_size
        mine = slice(rank * share, (rank + 1) * share)
        windows = everyone.part(mine)
        window, found = self._rows_in(windows, seqs)
        spot = np.arange(len(window)) - (np.cumsum(windows.length) - windows.length)[window]
        row = np.zeros((share, self.window), dtype=np.int64)
        is_real = np.zeros(row.shape, dtype=bool)
        row[window, spot] = found
        is_real[window, spot] = True
        is_event = self.is_event[row] & is_real
        step = np.cumsum(is_event, axis=1) - is_event
        if self.any_order:
            step = np.where(is_event, step, is_event.sum(1, keepdims=True))
        elif windows.lag is not None:
            step = _earlier(step, windows.ahead, windows.lag)
        every_row = found if world_size == 1 else self._rows_in(everyone, seqs)[1]
        positive = self.interactions.positive
        edges = EdgeRows(
            row=row.reshape(-1),
            is_real=is_real.reshape(-1),
            user=np.arange(share).repeat(self.window),
            step=step.reshape(-1),
            impression=np.arange(row.size),
            is_ranked=(positive[row] & is_real).reshape(-1),
            num_ranked=int(positive[every_row].sum()),
            everyone=every_row,
            capacity=row.size,  # histories are of these
        )
        return self._moments(windows, seqs, window, found), edges

    def of_log(
        self, everyone: Rows, seqs: Histories, rank: int, world_size: int
    ) -> tuple[Moments, EdgeRows]:
        """A rank's equal share of rows of a log; edges of a user with equally many events behind
        them share a moment. All ranks have equally many moments, as row-wise sharding wants."""
        shares = everyone.reshape(world_size, -1)
        distinct = [self._distinct(rows, seqs) for rows in shares]
        size = max(len(moment) for moment, _ in distinct)
        # All ranks' histories, so that this one knows how many items the fullest batch holds.
        every = [self._at(moment, seqs, size=size) for moment, _ in distinct]
        capacity = max(
            len(np.unique(np.append(moments.met, self.interactions.item[rows])))
            if self.has_items
            else 0
            for moments, rows in zip(every, shares, strict=True)
        )
        ranked = [self._ranked(rows) for rows in shares]
        num_ranked = sum(int(is_ranked.sum()) for _, is_ranked in ranked)
        edges = self._edges(
            shares[rank],
            distinct[rank][1],
            every[rank],
            ranked[rank],
            num_ranked=num_ranked,
            everyone=everyone,
            capacity=capacity,
        )
        return every[rank], edges

    def of_rows(self, rows: Rows, seqs: Histories) -> tuple[Moments, EdgeRows]:
        """Interactions to be scored, with as many moments."""
        moment, of_row = self._distinct(rows, seqs)
        moments = self._at(moment, seqs, size=len(rows))
        edges = self._edges(
            rows,
            of_row,
            moments,
            self._ranked(rows),
            num_ranked=1,
            everyone=rows,
            capacity=len(rows) + moments.met.size,
        )
        return moments, edges

    def _distinct(self, rows: Rows, seqs: Histories) -> tuple[Rows, Rows]:
        """The distinct (user, events behind) of `rows`, a number each, and which is whose."""
        if len(seqs.offsets) <= 2:  # nobody but the unknown user
            return np.zeros(1, dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
        user = self.interactions.user[rows]
        moment = user * (len(seqs.events) + 1)
        if self.any_order:
            moment = moment + seqs.offsets[user + 1] - seqs.offsets[user]
        elif self.window or self.knows_met:
            moment = moment + seqs.behind(self.interactions, rows)
        return np.unique(moment, return_inverse=True)

    def _at(self, moment: Rows, seqs: Histories, *, size: int) -> Moments:
        """The moments that `_distinct` numbers, padded to `size` of them."""
        moment = np.pad(moment, (0, size - len(moment)))
        user, behind = np.divmod(moment, len(seqs.events) + 1)
        return self.moments(windows_before(user, behind, self.window), seqs)

    def _edges(
        self,
        rows: Rows,
        user: Rows,
        moments: Moments,
        ranked: tuple[Rows, NDArray[np.bool_]],
        *,
        num_ranked: int,
        everyone: Rows,
        capacity: int,
    ) -> EdgeRows:
        impression, is_ranked = ranked
        step = moments.num_events[user]
        if self.any_order:
            is_own = moments.event[user] == rows[:, None]
            is_own &= np.arange(self.window) < step[:, None]
            step = np.where(is_own.any(1), is_own.argmax(1), step)
        return EdgeRows(
            row=rows,
            is_real=np.ones(len(rows), dtype=bool),
            user=user,
            step=step,
            impression=impression,
            is_ranked=is_ranked,
            num_ranked=num_ranked,
            everyone=everyone,
            capacity=capacity,
        )

    def _ranked(self, rows: Rows) -> tuple[Rows, NDArray[np.bool_]]:
        """rows (E,) -> which impression each belongs to, and whether it is a positive to be
        ranked: one that has something to be ranked against."""
        positive = self.interactions.positive[rows]
        if not self.is_logged:
            return np.arange(len(rows)), positive
        impression = impressions(self.interactions, rows)
        passed_over = np.bincount(impression[~positive], minlength=len(rows))
        return impression, positive & (passed_over[impression] > 0)


def _earlier(step: Rows, ahead: int, choice: NDArray[np.float64]) -> Rows:
    """step and choice in [0, 1), alike -> one of the `ahead` places up to each step, p with a
    probability proportional to log((p + 2) / (p + 1)): places 1 and 2 as often as those from
    50 to 100. Drawn evenly the few first places would be lost among the many others."""
    first = np.maximum(step + 1 - ahead, 0)
    place = (first + 1) * ((step + 2) / (first + 1)) ** choice
    return np.minimum(place.astype(np.int64) - 1, step)  # the last by rounding at most


def met_by(moments: Moments, user: Rows, item: Rows, num_items: int) -> NDArray[np.bool_]:
    """user (n,) rows of the moments, item (n,) catalogue rows -> has the user met the item by the
    end of the window, as far as the moments know?"""
    owner = np.arange(len(moments.met))[:, None]
    window = (owner * num_items + moments.met).reshape(-1)
    before = moments.known_user * num_items + moments.known_item
    return np.isin(user * num_items + item, np.append(window, before))


def sessions(time: Rows) -> Rows:
    """time (U, L) seconds of events in order, either way -> (U, L) rising from 0: a pause of more
    than an hour begins a session."""
    pause = np.abs(np.diff(time, axis=1)) > _SESSION_PAUSE
    return np.pad(pause.cumsum(axis=1), ((0, 0), (1, 0)))


def impressions(interactions: Interactions, rows: Rows) -> Rows:
    """rows (n,) -> (n,) numbers below n, equal for what a user was shown at one time."""
    _, user = np.unique(interactions.user[rows], return_inverse=True)
    _, time = np.unique(interactions.time[rows], return_inverse=True)
    return np.unique(user * len(rows) + time, return_inverse=True)[1]
