"""How much each event of a window counts at a moment: the recent ones more, this session's more."""

import numpy as np
from numpy.typing import NDArray

from flm_torchrec.data.sampling import Rows

# The weight of an event by how many events ago it was: sum of share * exp(-distance / scale).
KERNEL = ((0.7, 15.0), (0.3, 3.0), (0.03, float("inf")))
EARLIER_SESSION = 0.5  # times this, where a session began in between


def recency_weights(step: Rows, session: Rows) -> NDArray[np.float32]:
    """step (B,) events behind each moment, session (B, L) the number of each event's session
    -> (B, L), 0 where an event is not behind. As `views.linear.history_weight`, of a batch that is
    being made."""
    distance = step[:, None] - 1 - np.arange(session.shape[1])
    last = np.take_along_axis(session, (step[:, None] - 1).clip(min=0), axis=1)
    weight = _kernel(session.shape[1])[distance.clip(min=0)]
    return weight * np.where(session < last, np.float32(EARLIER_SESSION), 1) * (distance >= 0)


def _kernel(window: int) -> NDArray[np.float32]:
    """(window,) by distance"""
    distance = np.arange(window)
    shares = [share * np.exp(-distance / scale) for share, scale in KERNEL]
    return np.sum(shares, axis=0).astype(np.float32)
