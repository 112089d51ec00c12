"""Multi-task heads: what comes of an edge (click, like, rating, ...)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.model import Views
from flm_torchrec.tasks.bottoms import Adapter
from flm_torchrec.tasks.edge_input import EdgeInput
from flm_torchrec.tasks.joint import joint_loss, log_both
from flm_torchrec.tasks.label_factors import LabelFactors

# The slope that a head starts with: of a real label in standard deviations it is exact, since three
# of them are 1; of a logit it is about that of a share near a half.
_OF_EXPECTED = 3.0


class Head(nn.Module):
    """What one label is predicted by, from a bottom's output (E, W)."""

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

    def logit(self, hidden: Tensor) -> Tensor:
        """(E, W) -> (E,)"""
        return self.score(hidden).squeeze(1)

    def loss(self, hidden: Tensor, label: Tensor) -> Tensor:
        """hidden (E, W), label (E,) in {0, 1} -> (E,)"""
        return F.binary_cross_entropy_with_logits(self.logit(hidden), label, reduction="none")

    def predict(self, hidden: Tensor) -> Tensor:
        """(E, W) -> (E,) probability of 1"""
        return self.logit(hidden).sigmoid()


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


class Heads(nn.Module):
    """One head a label over a bottom; the loss is a vector, one entry a label.

    `bottom` makes of what `edge_input` shows T tensors (E, W), one a label, as `SharedBottom`,
    `MMoE` and `PLE` do. `adapter` above 0 is the bottleneck of a residual adapter each label has
    behind it. To what the head of a label in `biased` reads the embeddings of all features are
    added: its score is then linear in those of the user's id, the item's id and so on, which is a
    bias of each, without tables of its own; a new user or item has the unknown row's, and those of
    its features.

    `l2` times the squared length of those embeddings is added to the loss of each edge, as matrix
    factorisation has it: what is seen often is held back as often. (A table's optimizer has no
    weight decay on CPU.)

    What `factors` expects of an edge, an entry a label that it knows, every head reads beside that;
    the heads of those labels start as what it says of each alone.

    `joint` gives labels the label that they are given (a conversion, the click). Such a label has
    p(given) p(label | given) trained on all edges where both are known, a label that is given 0
    being known to be 0 (ESMM, Ma et al., SIGIR 2018): no selection of the edges biases it. The two
    heads are binary, and so are the labels.
    """

    def __init__(
        self,
        heads: Mapping[str, Head],
        edge_input: EdgeInput,
        bottom: nn.Module,
        *,
        adapter: int = 0,
        biased: Collection[str] = (),
        joint: Mapping[str, str] | None = None,
        l2: float = 0.0,
        factors: LabelFactors | None = None,
    ) -> None:
        super().__init__()
        self.l2 = l2
        self.factors = factors
        self.names = tuple(heads)
        self.edge_input = edge_input
        # The suffix: a module may not be called `apply` or `type`, a label may.
        self.heads = nn.ModuleDict({f"{name}_head": head for name, head in heads.items()})
        self.bottom = bottom
        self.adapters = nn.ModuleList(
            Adapter(int(cast(Any, bottom).width), adapter) if adapter else nn.Identity()
            for _ in heads
        )
        self.biased = frozenset(biased)
        self.joint = dict(joint or {})
        self._start_as_expected()

    def _start_as_expected(self) -> None:
        places = () if self.factors is None else self.factors.places
        for column, place in enumerate(places):
            weight = cast(nn.Linear, self.head(self.names[place]).score).weight
            nn.init.zeros_(weight)
            nn.init.constant_(weight[:, weight.shape[1] - len(places) + column], _OF_EXPECTED)

    def head(self, name: str) -> Head:
        """The head of one label."""
        head = self.heads[f"{name}_head"]
        assert isinstance(head, Head)
        return head

    def hidden(self, views: Views, batch: FLMBatch) -> dict[str, Tensor]:
        """What the head of each label reads: (E, its width)."""
        seen, features = self.edge_input(views, batch)
        return self._hidden(seen, features, batch)

    def _hidden(self, seen: Tensor, features: list[Tensor], batch: FLMBatch) -> dict[str, Tensor]:
        hidden = {}
        expected = [] if self.factors is None else [self.factors(batch)]
        for name, adapter, own in zip(self.names, self.adapters, self.bottom(seen), strict=True):
            biases = [vectors.flatten(1) for vectors in features] if name in self.biased else []
            hidden[name] = torch.cat([adapter(own), *biases, *expected], dim=1)
        return hidden

    def predict(self, views: Views, batch: FLMBatch) -> dict[str, Tensor]:
        """One (E,) a label: a probability, a value, or an expected value; of a label that holds
        where another does, given that."""
        hidden = self.hidden(views, batch)
        return {name: self.head(name).predict(hidden[name]) for name in self.names}

    def predict_joint(self, views: Views, batch: FLMBatch) -> dict[str, Tensor]:
        """One (E,) a label in `joint`: the probability of it and of what it is given."""
        hidden = self.hidden(views, batch)
        return {name: log_both(*self._logits(hidden, name))[0].exp() for name in self.joint}

    def _logits(self, hidden: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
        """(E,) of what the joint label `name` is given, (E,) its own."""
        given, own = self.head(self.joint[name]), self.head(name)
        assert isinstance(given, BinaryHead)
        assert isinstance(own, BinaryHead)
        return given.logit(hidden[self.joint[name]]), own.logit(hidden[name])

    def forward(self, views: Views, batch: FLMBatch) -> Tensor:
        """-> (T,)"""
        seen, features = self.edge_input(views, batch)
        hidden = self._hidden(seen, features, batch)
        held = seen.new_zeros(seen.shape[0])  # (E,)
        if self.l2:
            for vectors in features:
                held = held + self.l2 * vectors.square().sum((1, 2))
        labels = dict(zip(self.names, batch.edges.labels.unbind(1), strict=True))
        weights = dict(zip(self.names, batch.edges.label_weight.unbind(1), strict=True))
        losses = []
        for name in self.names:
            if (given := self.joint.get(name)) is None:
                loss = (weights[name] * self.head(name).loss(hidden[name], labels[name])).sum()
            else:
                logits = self._logits(hidden, name)
                told = (labels[given], labels[name]), (weights[given], weights[name])
                loss = joint_loss(logits, *told)
            losses.append(loss + (weights[name] * held).sum())
        return torch.stack(losses)
