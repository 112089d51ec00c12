"""Pairwise ranking: of two items whose true order for a user is known, the better scores above."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.model import Views
from flm_torchrec.tasks.ranking import candidate_scores, is_ruled_out


def pairwise_loss(margin: Tensor, is_pair: Tensor) -> Tensor:
    """The mean over each row's pairs of -log sigmoid(margin); 0 without pairs.

    margin (E, C), of the better item over the other, is_pair (E, C) bool -> (E,).
    """
    # What is no pair may be far away: 0 of it has no gradient.
    loss = F.softplus(-margin.masked_fill(~is_pair, 0.0)) * is_pair
    return loss.sum(1) / is_pair.sum(1).clamp(min=1)


def margins(views: Views, batch: FLMBatch) -> tuple[Tensor, Tensor]:
    """How far each edge's item scores above every other edge's, in the state before the edge:
    (E, E), and whether that state is one of the same user before both, and the items differ:
    (E, E) bool."""
    assert views.users is not None
    assert views.items is not None
    assert batch.items is not None
    edges, item = batch.edges, batch.items.first[batch.edges.item]
    state = views.users.states[edges.user, edges.step]
    score = state @ views.items.row[edges.item].T
    is_before = (edges.user[:, None] == edges.user) & (edges.step[:, None] <= edges.step)
    return score.diagonal()[:, None] - score, is_before & (item[:, None] != item)


class SampledOrder(nn.Module):
    """What the user met over the batch's negatives (BPR, Rendle et al., 2009), of which those are
    left out that the user met at any time that the batch knows of: between two things met
    nothing is known."""

    def forward(self, views: Views, batch: FLMBatch) -> Tensor:
        assert batch.users is not None
        positive, negatives = candidate_scores(views, batch)
        edges = batch.edges
        end = torch.full_like(edges.step, batch.users.history.shape[1])
        is_pair = ~is_ruled_out(batch, edges.user, edges.item, end, mask_seen=True)
        loss = pairwise_loss(positive[:, None] - negatives, is_pair)
        return (batch.edges.weight * loss).sum()


class LabelOrder(nn.Module):
    """Of two edges of one user the one with the higher label, in the state before both.

    `label` is its place among the labels of an edge. Each edge counts as in the label's head.
    """

    def __init__(self, *, label: int) -> None:
        super().__init__()
        self.label = label

    def forward(self, views: Views, batch: FLMBatch) -> Tensor:
        weight, label = batch.edges.label_weight[:, self.label], batch.edges.labels[:, self.label]
        margin, is_before = margins(views, batch)
        direction = (label[:, None] - label).sign()
        is_pair = is_before & (weight > 0) & (direction != 0)
        return (weight * pairwise_loss(direction * margin, is_pair)).sum()


class TimeOrder(nn.Module):
    """What the user met earlier over what was met later, in the state before both: that of the
    edge which comes first in the window, be it read backwards. One second makes no pair."""

    def forward(self, views: Views, batch: FLMBatch) -> Tensor:
        weight, time = batch.edges.weight, batch.edges.time
        margin, is_before = margins(views, batch)
        direction = (time - time[:, None]).sign()
        is_pair = is_before & (weight > 0) & (direction != 0)
        return (weight * pairwise_loss(direction * margin, is_pair)).sum()
