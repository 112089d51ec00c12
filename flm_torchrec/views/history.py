"""The user's states: what is known of a user after 0, 1, ..., L events of the window."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CausalAttention(nn.Module):
    """Multi-head self-attention that sees itself and what came before.

    The logits carry a learned bias a head and distance that starts as ALiBi's slopes
    (Press et al., 2022): nearer events weigh more from the first step on.
    """

    distance: Tensor  # (S, S), of a position to each other

    def __init__(self, dim: int, *, heads: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        slopes = torch.tensor([2.0 ** (-8.0 * (h + 1) / heads) for h in range(heads)])
        distance = torch.arange(max_length, dtype=torch.float32)
        self.distance_bias = nn.Parameter(-slopes[:, None] * distance)  # (heads, S)
        steps = torch.arange(max_length)
        self.register_buffer("distance", steps[:, None] - steps, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(U, S, D) -> (U, S, D); position t sees positions 0..t."""
        users, length, dim = x.shape
        qkv = self.qkv(x).view(users, length, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (U, heads, S, d) each
        distance = self.distance[:length, :length]
        bias = self.distance_bias[:, distance.clamp(min=0)]  # (heads, S, S)
        bias = bias.masked_fill(distance < 0, float("-inf"))
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, dropout_p=self.dropout if self.training else 0.0
        )
        return self.out(attended.transpose(1, 2).reshape(users, length, dim))


class CausalBlock(nn.Module):
    """Attention and a feed-forward layer, each behind a LayerNorm and around a residual."""

    def __init__(self, dim: int, *, heads: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = CausalAttention(dim, heads=heads, max_length=max_length, dropout=dropout)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, 4 * dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * dim, dim),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(U, S, D) -> (U, S, D)"""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.feed_forward(x))


class CausalHistory(nn.Module):
    """A causal transformer over the fused rows of the items met (SASRec, Kang & McAuley, 2018),
    with the user's own row in front and what each event told (a rating, ...) beside it.

    Example:
        history = CausalHistory(64, window=50, event_width=1)
        states = history(user_rows, event_rows, event_labels)  # (U, 51, 64)
    """

    def __init__(
        self,
        dim: int,
        *,
        window: int,
        event_width: int,
        layers: int = 2,
        heads: int = 2,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.event = nn.Linear(event_width, dim, bias=False)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            CausalBlock(dim, heads=heads, max_length=window + 1, dropout=dropout)
            for _ in range(layers)
        )
        self.state_norm = nn.LayerNorm(dim)

    def forward(self, user: Tensor, events: Tensor, event_labels: Tensor) -> Tensor:
        """user (U, D), events (U, L, D), event_labels (U, L, F) -> states (U, L + 1, D).

        State t depends on the user and on events 0..t-1 alone; state 0 is the cold user.
        """
        told = events + self.event(event_labels)
        x = self.dropout(self.norm(torch.cat([user[:, None], told], dim=1)))
        for block in self.blocks:
            x = block(x)
        return self.state_norm(x)
