"""Multi-task heads: what comes of an edge (click, like, rating, ...)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

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


class RealHead(Head):
    """A number, learned in units of the label's training standard deviation around its mean."""

    def __init__(self, width: int, *, mean: float, std: float) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)
        self.mean = mean
        self.std = std

    def loss(self, hidden: Tensor, label: Tensor) -> Tensor:
        """hidden (E, W), label (E,) -> (E,) squared error of the standardised label"""
        return (self.score(hidden).squeeze(1) - (label - self.mean) / self.std).square()

    def predict(self, hidden: Tensor) -> Tensor:
        """(E, W) -> (E,) the label's mean, given the edge"""
        return self.mean + self.std * self.score(hidden).squeeze(1)


class MulticlassHead(Head):
    """A softmax over the label's values in training; predicts the most probable one.

    `levels` are those values in rising order.
    """

    levels: Tensor  # (K,)

    def __init__(self, width: int, levels: Sequence[float]) -> None:
        super().__init__()
        self.score = nn.Linear(width, len(levels))
        levels_tensor = torch.tensor(levels, dtype=torch.float32)
        self.register_buffer("levels", levels_tensor, persistent=False)

    def loss(self, hidden: Tensor, label: Tensor) -> Tensor:
        """hidden (E, W), label (E,) one of the levels -> (E,)"""
        # Where a label is missing, 0 stands: it may lie above every level.
        place = torch.searchsorted(self.levels, label.contiguous()).clamp(max=len(self.levels) - 1)
        return F.cross_entropy(self.score(hidden), place, reduction="none")

    def predict(self, hidden: Tensor) -> Tensor:
        """(E, W) -> (E,) one of the levels"""
        return self.levels[self.score(hidden).argmax(1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What the heads of a data set read of an edge."""

    dim: int  # D
    has_user: bool
    has_item: bool
    num_features: int  # of user, item and context together
    num_numbers: int  # the same

    @property
    def num_vectors(self) -> int:
        """Vectors that a cross layer sees: of the features, the state and the item, and one of the
        numbers and a constant."""
        return self.num_features + self.has_user + self.has_item + 1


class Heads(nn.Module):
    """One head a label over a shared bottom; the loss is a vector, one entry a label.

    The bottom sees the user's state before the edge, the item, their product, all numbers of both
    and of the context, and the embeddings of the single features side by side or, with a `cross`,
    what that makes of all vectors: a module (E, F, D) -> (E, width), with F = `inputs.num_vectors`
    and `width` for an attribute, such as `FM` or `DCNv2`.
    """

    def __init__(
        self,
        heads: Mapping[str, Head],
        inputs: Inputs,
        *,
        cross: nn.Module | None = None,
        hidden: int,
        width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.names = tuple(heads)
        self.inputs = inputs
        # The suffix: a module may not be called `apply` or `type`, a label may.
        self.heads = nn.ModuleDict({f"{name}_head": head for name, head in heads.items()})
        self.cross = cross
        self.numbers = None
        features_width = inputs.num_features * inputs.dim
        if cross is not None:
            features_width = int(cast(Any, cross).width)
            # With a constant among the vectors their products hold each vector alone too.
            self.numbers = nn.Linear(1 + inputs.num_numbers, inputs.dim, bias=False)
        rows = inputs.has_user + inputs.has_item + (inputs.has_user and inputs.has_item)
        self.bottom = nn.Sequential(
            nn.Linear(rows * inputs.dim + features_width + inputs.num_numbers, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
            nn.ReLU(),
            nn.Dropout(dropout),
        )

    def head(self, name: str) -> Head:
        """The head of one label."""
        head = self.heads[f"{name}_head"]
        assert isinstance(head, Head)
        return head

    def seen(self, views: Views, batch: FLMBatch) -> Tensor:
        """What the bottom sees of each edge: (E, its width)."""
        edges, rows, features, numbers = batch.edges, [], [], [batch.edges.numbers]
        if views.users is not None and batch.users is not None:
            rows.append(views.users.states[edges.user, edges.step])
            features.append(views.users.features[edges.user])
            numbers.append(batch.users.numbers[edges.user])
        if views.items is not None and batch.items is not None:
            rows.append(views.items.row[edges.item])
            features.append(views.items.features[edges.item])
            numbers.append(batch.items.numbers[edges.item])
        if views.context is not None:
            features.append(views.context)
        product = [rows[0] * rows[1]] if len(rows) == 2 else []
        every_number = torch.cat(numbers, dim=1)
        if self.cross is None or self.numbers is None:
            seen = [vectors.flatten(1) for vectors in features]
        else:
            constant = self.numbers(F.pad(every_number, (1, 0), value=1.0))
            alone = [vector[:, None] for vector in (*rows, constant)]
            seen = [self.cross(torch.cat([*features, *alone], dim=1))]
        return torch.cat([*rows, *product, *seen, every_number], dim=1)

    def predict(self, views: Views, batch: FLMBatch) -> dict[str, Tensor]:
        """One (E,) a label: a probability, a value, or an expected value."""
        hidden = self.bottom(self.seen(views, batch))
        return {name: self.head(name).predict(hidden) for name in self.names}

    def forward(self, views: Views, batch: FLMBatch) -> Tensor:
        edges = batch.edges
        hidden = self.bottom(self.seen(views, batch))
        losses = [
            (edges.label_weight[:, t] * self.head(name).loss(hidden, edges.labels[:, t])).sum()
            for t, name in enumerate(self.names)
        ]
        return torch.stack(losses)
