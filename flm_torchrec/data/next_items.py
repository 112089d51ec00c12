"""What users met next, with the events on either side: what the linear path is fitted on."""

from dataclasses import dataclass

import numpy as np

from flm_torchrec.data.dataset import TRAIN, VALIDATION, Dataset
from flm_torchrec.data.moments import sessions
from flm_torchrec.data.sampling import Rows, histories


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NextItems:
    """n moments of training at which a user wanted an item, among the m events of all users."""

    item: Rows  # (n,) wanted at the moment
    user: Rows  # (n,)
    before: Rows  # (n,) how many of the m events, grouped by user, lie before the moment
    after: Rows  # (n,) and up to it, itself included
    event_item: Rows  # (m,)
    event_session: Rows  # (m,) rising within a user
    offsets: Rows  # (users + 1,) user u owns events[offsets[u]:offsets[u + 1]]

    def histories(self, rows: Rows, window: int, *, is_reversed: bool) -> tuple[Rows, Rows]:
        """rows (b,) of the moments -> items and sessions (b, window) of the events before each or,
        read backwards, after it; the nearest stands last, item 0 where there is none."""
        far = np.arange(window)[::-1]
        if is_reversed:
            place = self.after[rows][:, None] + far
            is_there = place < self.offsets[self.user[rows] + 1][:, None]
        else:
            place = self.before[rows][:, None] - 1 - far
            is_there = place >= self.offsets[self.user[rows]][:, None]
        place = np.where(is_there, place, 0)
        session = self.event_session[place]
        return self.event_item[place] * is_there, -session if is_reversed else session


def next_items(dataset: Dataset) -> NextItems:
    """Those of the training part."""
    interactions = dataset.interactions
    events = histories(interactions, before_part=VALIDATION)
    is_event = np.zeros(len(interactions.user), dtype=bool)
    is_event[events.events] = True
    is_wanted = (interactions.part == TRAIN) & interactions.positive
    row = np.flatnonzero(is_wanted & (interactions.user > 0) & (interactions.item > 0))
    user = interactions.user[row]
    before = events.offsets[user] + events.behind(interactions, row)
    return NextItems(
        item=interactions.item[row],
        user=user,
        before=before,
        after=before + is_event[row],
        event_item=interactions.item[events.events],
        event_session=sessions(interactions.time[events.events][None])[0],
        offsets=events.offsets,
    )
