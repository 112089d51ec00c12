"""The user's states where order must not matter: each made of all other events of the window."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flm_torchrec.views.history import History, feed_forward


class SetBlock(nn.Module):
    """States attend to what they may see, which stays as it is: nothing passes between events, so
    that no stack of blocks carries an event into the state that leaves it out.
    """

    def __init__(self, dim: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_dropout = dropout
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.feed_forward = feed_forward(dim, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, seen: Tensor, may_see: Tensor) -> Tensor:
        """states (U, S, D), seen (U, S, D), may_see (U, 1, S, S) bool -> states (U, S, D)"""
        users, length, dim = states.shape
        shape = users, length, self.heads, dim // self.heads
        query = self.query(self.norm(states)).view(shape).transpose(1, 2)
        key, value = self.key_value(seen).view(users, length, 2, *shape[2:]).permute(2, 0, 3, 1, 4)
        dropout = self.attention_dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=may_see, dropout_p=dropout
        )
        states = states + self.dropout(self.out(attended.transpose(1, 2).reshape(states.shape)))
        return states + self.dropout(self.feed_forward(states))


class SetHistory(History):
    """Attention pooling over the set of a user's events (Zaheer et al., 2017; Lee et al., 2019)
    that leaves out, in each state, the event of its own place.

    Example:
        history = SetHistory(64, event_width=1)
        states = history(user_rows, event_rows, event_labels, gap, num_events)  # (U, 51, 64)
    """

    def __init__(
        self,
        dim: int,
        *,
        event_width: int,
        classes: Mapping[int, int] | None = None,
        layers: int = 2,
        heads: int = 2,
        dropout: float = 0.3,
    ) -> None:
        # A gap tells of another event.
        super().__init__(dim, event_width=event_width, gaps=False, classes=classes)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = feed_forward(dim, dropout=dropout)
        self.seen_norm = nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(
            SetBlock(dim, heads=heads, dropout=dropout) for _ in range(layers)
        )
        self.state_norm = nn.LayerNorm(dim)

    def forward(
        self, user: Tensor, events: Tensor, event_labels: Tensor, gap: Tensor, num_events: Tensor
    ) -> Tensor:
        """(U, D), (U, L, D), (U, L, F), (U, L), (U,) -> states (U, L + 1, D).

        State t depends on the user and on all of the first num_events events but event t; from
        t = num_events on, on all of them.
        """
        told = self.read(events, event_labels, gap)
        seen = self.dropout(self.norm(torch.cat([user[:, None], told], dim=1)))
        states = seen[:, :1].expand_as(seen)
        seen = self.seen_norm(seen + self.feed_forward(seen))
        place = torch.arange(seen.shape[1], device=seen.device)
        is_there = place <= num_events[:, None]  # the user's own row stands in front
        is_own = place == place[:, None] + 1
        may_see = is_there[:, None, None] & ~is_own
        for block in self.blocks:
            states = block(states, seen, may_see)
        return self.state_norm(states)
