"""Multi-task heads: what comes of an edge (click, like, rating, ...)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.model import Views


class Head(nn.Module):
    """What one label is predicted by, from the shared bottom's output (E, W)."""

    def loss(self, hidden: Tensor, label: Tensor) -> Tensor:
        """hidden (E, W), label (E,) -> (E,)"""
        raise NotImplementedError

    def predict(self, hidden: Tensor) -> Tensor:
        """hidden (E, W) -> (E,) on the label's own scale"""
        raise NotImplementedError


class BinaryHead(Head):
    """A logit; predicts the probability of 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def loss(self, hidden: Tensor, label: Tensor) -> Tensor:
        """hidden (E, W), label (E,) in {0, 1} -> (E,)"""
        return F.binary_cross_entropy_with_logits(
            self.score(hidden).squeeze(1), label, reduction="none"
        )

    def predict(self, hidden: Tensor) -> Tensor:
        """(E, W) -> (E,) probability of 1"""
        return self.score(hidden).squeeze(1).sigmoid()


class OrdinalHead(Head):
    """Cumulative logits, P(y > level k) = sigmoid(score - threshold k), fitted as one binary
    question a threshold (CORAL, Cao et al., 2020).

    `levels` are the label's values in rising order, `counts` how often training holds each;
    thresholds start at the label's own distribution. Predicts the expected value.
    """

    levels: Tensor  # (K,)

    def __init__(self, width: int, levels: Sequence[float], counts: Sequence[float]) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False)
        # Of the data, not learned: a checkpoint of other data must not bring its own.
        levels_tensor = torch.tensor(levels, dtype=torch.float32)
        self.register_buffer("levels", levels_tensor, persistent=False)
        share = torch.tensor(counts, dtype=torch.float32)
        above = (1 - share.cumsum(0) / share.sum())[:-1].clamp(1e-4, 1 - 1e-4)
        start = -above.logit()
        self.threshold = nn.Parameter(start[:1].clone())
        gaps = start.diff().clamp(min=1e-3)
        self.log_gap = nn.Parameter(gaps.log())

    def logits(self, hidden: Tensor) -> Tensor:
        """(E, W) -> (E, K - 1), falling from level to level."""
        rise = torch.cat([self.threshold, self.log_gap.exp()]).cumsum(0)
        return self.score(hidden) - rise

    def loss(self, hidden: Tensor, label: Tensor) -> Tensor:
        """hidden (E, W), label (E,) one of the levels -> (E,), summed over the thresholds"""
        above = (label[:, None] > self.levels[:-1]).to(hidden.dtype)
        return F.binary_cross_entropy_with_logits(self.logits(hidden), above, reduction="none").sum(
            1
        )

    def predict(self, hidden: Tensor) -> Tensor:
        """(E, W) -> (E,) expected value"""
        step = self.levels.diff()
        return self.levels[0] + (self.logits(hidden).sigmoid() * step).sum(1)


class Heads(nn.Module):
    """One head a label over a shared bottom; the loss is a vector, one entry a label.

    The bottom sees the user's state before the edge, the item, their product and the embeddings
    of the single features of both.
    """

    def __init__(
        self,
        heads: Mapping[str, Head],
        *,
        dim: int,
        feature_width: int,
        hidden: int,
        width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.names = tuple(heads)
        # The suffix: a module may not be called `apply` or `type`, a label may.
        self.heads = nn.ModuleDict({f"{name}_head": head for name, head in heads.items()})
        self.bottom = nn.Sequential(
            nn.Linear(3 * dim + feature_width, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
            nn.ReLU(),
            nn.Dropout(dropout),
        )

    def hidden(self, state: Tensor, item: Tensor, features: Tensor) -> Tensor:
        """state, item (E, D), features (E, feature_width) -> (E, width)"""
        return self.bottom(torch.cat([state, item, state * item, features], dim=1))

    def head(self, name: str) -> Head:
        """The head of one label."""
        head = self.heads[f"{name}_head"]
        assert isinstance(head, Head)
        return head

    def predict(self, state: Tensor, item: Tensor, features: Tensor) -> dict[str, Tensor]:
        """One (E,) a label: a probability, or an expected value."""
        hidden = self.hidden(state, item, features)
        return {name: self.head(name).predict(hidden) for name in self.names}

    def forward(self, views: Views, batch: FLMBatch) -> Tensor:
        edges = batch.edges
        hidden = self.hidden(
            views.users.states[edges.user, edges.step],
            views.items.row[edges.item],
            torch.cat([views.users.features[edges.user], views.items.features[edges.item]], dim=1),
        )
        losses = [
            (edges.label_weight[:, t] * self.head(name).loss(hidden, edges.labels[:, t])).sum()
            for t, name in enumerate(self.names)
        ]
        return torch.stack(losses)
