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
    score = (views.users.states[edges.user, edges.step] * views.items.row[edges.item]).sum(1)
    return score if views.linear is None else score + views.linear[:, 0]


def candidate_scores(views: Views, batch: FLMBatch) -> tuple[Tensor, Tensor]:
    """-> how high the item of each edge ranks for its user (E,), and each negative (E, N)."""
    assert views.users is not None
    assert views.items is not None
    assert batch.items is not None
    num_negatives = batch.items.log_q.shape[0]
    state = views.users.states[batch.edges.user, batch.edges.step]  # (E, D)
    negatives = state @ views.items.row[-num_negatives:].T
    if views.linear is not None:
        negatives = negatives + views.linear[:, 1:]
    return edge_scores(views, batch), negatives


def is_no_negative(batch: FLMBatch, *, mask_seen: bool) -> Tensor:
    """(E, N) bool, of each edge: the unknown item, its own item, what training never met and, if
    `mask_seen`, what the user had already met."""
    edges = batch.edges
    return is_ruled_out(batch, edges.user, edges.item, edges.step, mask_seen=mask_seen)


def is_ruled_out(
    batch: FLMBatch, user: Tensor, item: Tensor, step: Tensor, *, mask_seen: bool
) -> Tensor:
    """user, item, step (n,) -> (n, N) bool: is a negative the unknown item, the `item` itself, of
    another domain than it, never met in training or, if `mask_seen`, met by the user within `step`
    events?

    What training never met may be new or held out: taken for passed over, it would teach that such
    items are not wanted. A domain's own negatives are as many as expected of the draw over all, so
    log q stays right."""
    items = batch.items
    assert items is not None
    num_negatives = items.log_q.shape[0]
    candidate = items.first[-num_negatives:]  # (N,)
    is_own = candidate == items.first[item][:, None]
    is_none = items.row[-num_negatives:] == 0
    is_masked = is_own | (is_none if items.never_met is None else is_none | items.never_met)
    if items.domain is not None:
        is_masked = is_masked | (items.domain[-num_negatives:] != items.domain[item][:, None])
    if mask_seen:
        met = first_met(batch)[:, candidate]  # (U, N)
        is_masked = is_masked | (met[user] < step[:, None])
    return is_masked


class Ranking(nn.Module):
    """Softmax over the own positive and the batch's N negatives.

    Masked are the unknown item, the positive among the negatives, what training never met and, if
    `mask_seen`, what the user had already met: use it where nobody meets an item twice.
    """

    def __init__(self, *, mask_seen: bool) -> None:
        super().__init__()
        self.mask_seen = mask_seen

    def forward(self, views: Views, batch: FLMBatch) -> Tensor:
        assert batch.items is not None
        positive, negatives = candidate_scores(views, batch)
        is_masked = is_no_negative(batch, mask_seen=self.mask_seen)
        loss = softmax_loss(positive, negatives - batch.items.log_q, is_masked)
        return (batch.edges.weight * loss).sum()


class LoggedRanking(nn.Module):
    """Softmax of each positive over itself and what was passed over of the same impression."""

    def forward(self, views: Views, batch: FLMBatch) -> Tensor:
        edges = batch.edges
        scores = edge_scores(views, batch)
        loss = group_softmax_loss(scores, edges.is_negative, edges.impression, len(scores))
        return (edges.weight * loss).sum()
