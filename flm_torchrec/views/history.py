"""The user's states: what is known of a user after 0, 1, ..., L events of the window."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_GAP_BUCKETS = 32


class History(nn.Module):
    """Base: a user's states from the fused rows of the items met, what each event told (a rating,
    ...) and, if `gaps`, the time since the event before it, in log-spaced buckets.

    An event tells `event_width` labels, NaN where missing; 0: they are not read. Those at the
    places that `classes` maps to a number of classes are classes, with a vector each (a type of
    event, ...), the others numbers.
    """

    def __init__(
        self, dim: int, *, event_width: int, gaps: bool, classes: Mapping[int, int] | None = None
    ) -> None:
        super().__init__()
        self.classes = dict(classes or {})
        self.numbers = [place for place in range(event_width) if place not in self.classes]
        self.event = nn.Linear(len(self.numbers), dim, bias=False) if self.numbers else None
        # Row 0: missing.
        tables = [nn.Embedding(1 + count, dim) for count in self.classes.values()]
        for table in tables:
            nn.init.normal_(table.weight, std=0.02)
        self.class_rows = nn.ModuleList(tables)
        self.gap = nn.Embedding(_GAP_BUCKETS, dim) if gaps else None
        if self.gap is not None:
            nn.init.normal_(self.gap.weight, std=0.02)

    def read(self, events: Tensor, event_labels: Tensor, gap: Tensor) -> Tensor:
        """(U, L, D), (U, L, F), (U, L) -> (U, L, D), each event with what is known of it."""
        if self.event is not None:
            numbers = event_labels
            if self.classes:
                numbers = torch.stack([event_labels[:, :, at] for at in self.numbers], dim=2)
            events = events + self.event(numbers.nan_to_num())
        for place, table in zip(self.classes, self.class_rows, strict=True):
            events = events + table((1 + event_labels[:, :, place]).nan_to_num().long())
        if self.gap is not None:
            bucket = (gap * _GAP_BUCKETS).long().clamp(max=_GAP_BUCKETS - 1)
            events = events + self.gap(bucket)
        return events

    def forward(
        self, user: Tensor, events: Tensor, event_labels: Tensor, gap: Tensor, num_events: Tensor
    ) -> Tensor:
        """user (U, D), events (U, L, D), event_labels (U, L, F), gap (U, L), num_events (U,) ->
        states (U, L + 1, D)."""
        raise NotImplementedError


class CausalAttention(nn.Module):
    """Multi-head self-attention that sees itself and what came before.

    The logits carry a learned bias a head and distance that starts as ALiBi's slopes
    (Press et al., 2022): nearer events weigh more from the first step on. With `later` it can also
    see what comes later, at distances of their own.
    """

    distance: Tensor  # (S, S), of a position to each other

    def __init__(
        self, dim: int, *, heads: int, max_length: int, dropout: float, later: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        slopes = torch.tensor([2.0 ** (-8.0 * (h + 1) / heads) for h in range(heads)])
        distance = torch.arange(max_length, dtype=torch.float32)
        self.distance_bias = nn.Parameter(-slopes[:, None] * distance)  # (heads, S)
        self.later_bias = nn.Parameter(-slopes[:, None] * distance) if later else None
        steps = torch.arange(max_length)
        self.register_buffer("distance", steps[:, None] - steps, persistent=False)

    def forward(self, x: Tensor, is_there: Tensor | None = None) -> Tensor:
        """(U, S, D) -> (U, S, D); position t sees positions 0..t, or with is_there (U, S) bool
        all of those."""
        users, length, dim = x.shape
        qkv = self.qkv(x).view(users, length, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (U, heads, S, d) each
        distance = self.distance[:length, :length]
        bias = self.distance_bias[:, distance.clamp(min=0)]  # (heads, S, S)
        is_seen = distance >= 0
        if is_there is not None:
            assert self.later_bias is not None, "it sees nothing later"
            later = self.later_bias[:, (-distance).clamp(min=0)]
            bias, is_seen = torch.where(is_seen, bias, later), is_there[:, None, None]
        bias = bias.masked_fill(~is_seen, float("-inf"))
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, dropout_p=self.dropout if self.training else 0.0
        )
        return self.out(attended.transpose(1, 2).reshape(users, length, dim))


def feed_forward(dim: int, *, dropout: float) -> nn.Sequential:
    """A layer on each row alone, behind a LayerNorm."""
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, 4 * dim),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(4 * dim, dim),
    )


class CausalBlock(nn.Module):
    """Attention and a feed-forward layer, each behind a LayerNorm and around a residual."""

    def __init__(
        self, dim: int, *, heads: int, max_length: int, dropout: float, later: bool = False
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = CausalAttention(
            dim, heads=heads, max_length=max_length, dropout=dropout, later=later
        )
        self.feed_forward = feed_forward(dim, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, is_there: Tensor | None = None) -> Tensor:
        """(U, S, D) -> (U, S, D); with is_there (U, S) bool not causal."""
        x = x + self.dropout(self.attention(self.attention_norm(x), is_there))
        return x + self.dropout(self.feed_forward(x))


class CausalHistory(History):
    """A causal transformer over the events (SASRec, Kang & McAuley, 2018), with the user's own row
    in front. If `hides`, it also finds hidden events, for which it is not causal (BERT4Rec, Sun et
    al., 2019).

    Example:
        history = CausalHistory(64, window=50, event_width=1)
        states = history(user_rows, event_rows, event_labels, gap, num_events)  # (U, 51, 64)
    """

    def __init__(
        self,
        dim: int,
        *,
        window: int,
        event_width: int,
        classes: Mapping[int, int] | None = None,
        gaps: bool = False,
        layers: int = 2,
        heads: int = 2,
        dropout: float = 0.3,
        hides: bool = False,
    ) -> None:
        super().__init__(dim, event_width=event_width, gaps=gaps, classes=classes)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            CausalBlock(dim, heads=heads, max_length=window + 1, dropout=dropout, later=hides)
            for _ in range(layers)
        )
        self.state_norm = nn.LayerNorm(dim)
        self.hidden_event = nn.Parameter(0.02 * torch.randn(dim)) if hides else None

    def forward(
        self,
        user: Tensor,
        events: Tensor,
        event_labels: Tensor,
        gap: Tensor,
        num_events: Tensor,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """(U, D), (U, L, D), (U, L, F), (U, L), (U,) -> states (U, L + 1, D).

        State t depends on the user and on events 0..t-1 alone; state 0 is the cold user. With
        `hidden` (U, H), places of events, -1 = none -> (U, H, D), what all other events say of
        each of those, whose own vectors, labels and gaps are not read.
        """
        told = self.read(events, event_labels, gap)
        if hidden is None:
            return self._states(user, told)
        assert self.hidden_event is not None, "it hides no events"
        place = torch.arange(events.shape[1], device=hidden.device)
        is_hidden = (hidden[:, :, None] == place).any(1)  # (U, L)
        told = torch.where(is_hidden[:, :, None], self.hidden_event, told)
        is_there = F.pad(place < num_events[:, None], (1, 0), value=True)
        states = self._states(user, told, is_there)
        at = 1 + hidden.clamp(min=0)[:, :, None].expand(-1, -1, states.shape[2])
        return states.gather(1, at)

    def _states(self, user: Tensor, told: Tensor, is_there: Tensor | None = None) -> Tensor:
        """(U, D), (U, L, D), (U, L + 1) bool or None -> (U, L + 1, D)"""
        x = self.dropout(self.norm(torch.cat([user[:, None], told], dim=1)))
        for block in self.blocks:
            x = block(x, is_there)
        return self.state_norm(x)
