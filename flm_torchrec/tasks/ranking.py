"""Ranking: the item that the user wants next scores above the others."""

import torch
from torch import Tensor, nn

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.model import Views
from flm_torchrec.tasks.contrast import group_softmax_loss, softmax_loss


def first_met(batch: FLMBatch) -> Tensor:
    """(U, M) int64: at which event of the window each user first met each item.

    -1 = before the window, L = not yet at its end. Read it at `items.first`: only the first row of
    an item that stands in several rows is filled.
    """
    users, items = batch.users, batch.items
    assert users is not None
    assert items is not None
    num_users, window = users.history.shape
    never = torch.full(
        (num_users, items.row.shape[0]), window, dtype=torch.int64, device=items.row.device
    )
    event = torch.arange(window, device=items.row.device)
    event = torch.where(event < users.num_events[:, None], event, window)
    met = never.scatter_reduce(1, items.first[users.history], event, reduce="amin")
    known = items.first[users.known_item]
    return met.index_put((users.known_user, known), torch.tensor(-1, device=met.device))


def edge_scores(views: Views, batch: FLMBatch) -> Tensor:
    """(E,) how high the item of each edge ranks for its user."""
    assert views.users is not None
    assert views.items is not None
    edges = batch.edges
    return (views.users.states[edges.user, edges.step] * views.items.row[edges.item]).sum(1)


class Ranking(nn.Module):
    """Softmax over the own positive and the batch's N negatives.

    Masked are the unknown item, the positive among the negatives and, if `mask_seen`, what the
    user had already met: use it where nobody meets an item twice.
    """

    def __init__(self, *, mask_seen: bool) -> None:
        super().__init__()
        self.mask_seen = mask_seen

    def forward(self, views: Views, batch: FLMBatch) -> Tensor:
        edges, items = batch.edges, batch.items
        assert views.users is not None
        assert views.items is not None
        assert items is not None
        num_negatives = items.log_q.shape[0]
        candidate = items.first[-num_negatives:]  # (N,)
        state = views.users.states[edges.user, edges.step]  # (E, D)
        positive = (state * views.items.row[edges.item]).sum(1)
        negatives = state @ views.items.row[-num_negatives:].T - items.log_q
        is_masked = (candidate == items.first[edges.item][:, None]) | (
            items.row[-num_negatives:] == 0
        )
        if self.mask_seen:
            met = first_met(batch)[:, candidate]  # (U, N)
            is_masked = is_masked | (met[edges.user] < edges.step[:, None])
        return (edges.weight * softmax_loss(positive, negatives, is_masked)).sum()


class LoggedRanking(nn.Module):
    """Softmax of each positive over itself and what was passed over of the same impression."""

    def forward(self, views: Views, batch: FLMBatch) -> Tensor:
        edges = batch.edges
        scores = edge_scores(views, batch)
        loss = group_softmax_loss(scores, edges.is_negative, edges.impression, len(scores))
        return (edges.weight * loss).sum()
