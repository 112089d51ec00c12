"""Users at moments of their histories, and the edges that stand there: what a batch is made of."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flm_torchrec.data.dataset import Interactions
from flm_torchrec.data.sampling import Histories, Rows, Sequences, Windows, windows_before

_NO_ROWS: Rows = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """U users, each at one moment, and what each had met by then."""

    user: Rows  # (U,)
    met: Rows  # (U, L) catalogue rows of the items, 0 where there is no event
    event: Rows  # (U, L) positions in the interactions; any where there is no event
    num_events: Rows  # (U,) they stand first
    known_user: Rows  # (S,) with known_item the pairs met before the window
    known_item: Rows  # (S,) catalogue rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EdgeRows:
    """E interactions, each at a moment; of padding, is_real is False."""

    row: Rows  # (E,) positions in the interactions
    is_real: NDArray[np.bool_]  # (E,)
    user: Rows  # (E,) row of the moments
    step: Rows  # (E,) events of the moment's window behind it
    everyone: Rows  # (n,) the real rows of all ranks
    capacity: int  # the most distinct items that edges and histories can hold


class MomentFinder:
    """Histories of at most `window` events, among interactions of which some are events.

    Where `knows_met`, moments hold what was met before the window too.
    """

    def __init__(self, interactions: Interactions, *, window: int, knows_met: bool) -> None:
        self.interactions = interactions
        self.window = window
        self.knows_met = knows_met
        self.is_event = np.zeros(len(interactions.user), dtype=bool)
        self.is_event[interactions.events] = True

    def moments(self, windows: Windows, seqs: Sequences) -> Moments:
        """The end of each window, with the events in it."""
        window, place = windows.positions(windows.first, windows.length)
        row = seqs.events[seqs.offsets[windows.user][window] + place]
        # What enters no history leaves no gap.
        is_event = self.is_event[row]
        behind = np.append(np.cumsum(is_event) - is_event, 0)
        begin = np.cumsum(windows.length) - windows.length
        step = (behind[:-1] - behind[begin].repeat(windows.length))[is_event]
        window, row = window[is_event], row[is_event]
        shape = len(windows.user), self.window
        event, met = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        event[window, step] = row
        met[window, step] = self.interactions.item[row]
        known_user = known_item = _NO_ROWS
        if self.knows_met:
            known_user, place = windows.positions(np.zeros_like(windows.first), windows.first)
            earlier = seqs.events[seqs.offsets[windows.user][known_user] + place]
            known_item = self.interactions.item[earlier]
        return Moments(
            user=windows.user,
            met=met,
            event=event,
            num_events=np.bincount(window, minlength=len(windows.user)),
            known_user=known_user,
            known_item=known_item,
        )

    def of_windows(
        self, everyone: Windows, seqs: Sequences, rank: int, world_size: int
    ) -> tuple[Moments, EdgeRows]:
        """A rank's equal share of the windows, every interaction in them an edge at its own step,
        padded to `window` edges a user."""
        share = len(everyone.user) // world_size
        mine = slice(rank * share, (rank + 1) * share)
        windows = Windows(
            user=everyone.user[mine],
            first=everyone.first[mine],
            length=everyone.length[mine],
            total=everyone.total[mine],
            is_reversed=everyone.is_reversed[mine],
        )
        window, place = windows.positions(windows.first, windows.length)
        spot = np.arange(len(window)) - (np.cumsum(windows.length) - windows.length)[window]
        row = np.zeros((share, self.window), dtype=np.int64)
        is_real = np.zeros(row.shape, dtype=bool)
        row[window, spot] = seqs.events[seqs.offsets[windows.user][window] + place]
        is_real[window, spot] = True
        is_event = self.is_event[row] & is_real
        of_all, place = everyone.positions(everyone.first, everyone.length)
        edges = EdgeRows(
            row=row.reshape(-1),
            is_real=is_real.reshape(-1),
            user=np.arange(share).repeat(self.window),
            step=(np.cumsum(is_event, axis=1) - is_event).reshape(-1),
            everyone=seqs.events[seqs.offsets[everyone.user][of_all] + place],
            capacity=row.size,  # histories are of these
        )
        return self.moments(windows, seqs), edges

    def of_log(
        self, everyone: Rows, seqs: Histories, rank: int, world_size: int
    ) -> tuple[Moments, EdgeRows]:
        """A rank's equal share of rows of a log; edges of a user with equally many events behind
        them share a moment. All ranks have equally many moments, as row-wise sharding wants."""
        shares = everyone.reshape(world_size, -1)
        size = max(len(self._distinct(rows, seqs)[0]) for rows in shares)
        return self._at(shares[rank], seqs, size=size, everyone=everyone)

    def of_rows(self, rows: Rows, seqs: Histories) -> tuple[Moments, EdgeRows]:
        """Interactions to be scored, with as many moments."""
        return self._at(rows, seqs, size=len(rows), everyone=rows)

    def _distinct(self, rows: Rows, seqs: Histories) -> tuple[Rows, Rows]:
        """The distinct (user, events behind) of `rows`, a number each, and which is whose."""
        behind = seqs.behind(self.interactions, rows)
        moment = self.interactions.user[rows] * (len(seqs.events) + 1) + behind
        return np.unique(moment, return_inverse=True)

    def _at(
        self, rows: Rows, seqs: Histories, *, size: int, everyone: Rows
    ) -> tuple[Moments, EdgeRows]:
        moment, of_row = self._distinct(rows, seqs)
        moment = np.pad(moment, (0, size - len(moment)))
        user, behind = np.divmod(moment, len(seqs.events) + 1)
        moments = self.moments(windows_before(user, behind, self.window), seqs)
        edges = EdgeRows(
            row=rows,
            is_real=np.ones(len(rows), dtype=bool),
            user=of_row,
            step=moments.num_events[of_row],
            everyone=everyone,
            capacity=len(rows) + moments.met.size,
        )
        return moments, edges
