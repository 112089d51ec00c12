"""The user's states as recency-weighted means: what a history is worth without a transformer."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from flm_torchrec.data.recency import KERNEL
from flm_torchrec.views.history import History


class MeanHistory(History):
    """The mean of the events so far, recent ones weighing more, added to the user's own row.

    An event with d later ones weighs `sum_k share_k exp(-d / range_k) + share`, with learned shares
    and ranges that start at .7 exp(-d / 15) + .3 exp(-d / 3) + .03.

    Example:
        history = MeanHistory(64, window=50, event_width=1)
        states = history(user_rows, event_rows, event_labels, gap, num_events)  # (U, 51, 64)
    """

    later: Tensor  # (L + 1, L), of state t and event s: events between them; below 0 = not yet met

    def __init__(
        self,
        dim: int,
        *,
        window: int,
        event_width: int,
        classes: Mapping[int, int] | None = None,
        gaps: bool = False,
        dropout: float = 0.3,
    ) -> None:
        super().__init__(dim, event_width=event_width, gaps=gaps, classes=classes)
        # The last share counts however long ago an event was.
        self.log_share = nn.Parameter(torch.tensor([share for share, _ in KERNEL]).log())
        self.log_range = nn.Parameter(torch.tensor([reach for _, reach in KERNEL[:-1]]).log())
        self.dropout = nn.Dropout(dropout)
        self.state_norm = nn.LayerNorm(dim)
        later = torch.arange(window + 1)[:, None] - 1 - torch.arange(window)
        self.register_buffer("later", later, persistent=False)

    def weights(self, length: int) -> Tensor:
        """-> (length + 1, length), of each event in each state; they add up to 1 but in state 0."""
        later = self.later[: length + 1, :length]
        decay = torch.exp(-later.clamp(min=0)[:, :, None] / self.log_range.exp())
        share = self.log_share.exp()
        weight = (decay @ share[:-1] + share[-1]) * (later >= 0)
        return weight / weight.sum(1, keepdim=True).clamp(min=1e-9)

    def forward(
        self, user: Tensor, events: Tensor, event_labels: Tensor, gap: Tensor, num_events: Tensor
    ) -> Tensor:
        """(U, D), (U, L, D), (U, L, F), (U, L), (U,) -> states (U, L + 1, D).

        State t depends on the user and on events 0..t-1 alone; state 0 is the cold user.
        """
        told = self.read(events, event_labels, gap)
        mean = self.weights(events.shape[1]) @ told
        return self.state_norm(self.dropout(user[:, None] + mean))
