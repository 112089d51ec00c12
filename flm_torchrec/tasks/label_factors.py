"""What labels of other items say of a label, as a factorisation has it, for any history."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flm_torchrec.data.batch import FLMBatch, UserRows
from flm_torchrec.tasks.label_factors_fit import Factors, moments
from flm_torchrec.views.linear_fit import foretelling


class LabelFactors(nn.Module):
    """For each of T labels the expected value of an edge, from the labels of the user's other
    events: mean + b_i + E[(b_u, z_u)] (1, v_i), where the user's row is the posterior given those
    events alone (`fit_factors` has the model). So a user needs no row of a table: a new one, or one
    who clicked a second ago, has what their events say.

    Other events are all of the window with `any_order`, and those before the edge without it. In
    training each user's items come from a fit on the other users (stacking, Wolpert, 1992).

    Example:
        factors = LabelFactors(places=[0, 1], rank=8, any_order=True)
        factors.table, factors.common = stacked([fits of like, fits of rating])
        factors(batch)  # (E, 2), labels scaled to [-1, 1] as those of events are
    """

    table: Tensor  # (1 + folds, items, T, W) see `packed`; [0] of all users
    common: Tensor  # (1 + folds, T, 2 + 2 d) see `packed`

    def __init__(self, places: Sequence[int], *, rank: int, any_order: bool) -> None:
        super().__init__()
        self.places = tuple(places)  # of the labels, among those of an event
        self.dim = 1 + rank
        self.any_order = any_order
        # Fitted from the data, as the linear path is: not in checkpoints.
        width = 1 + 3 * self.dim + self.dim**2
        self.register_buffer("table", torch.zeros(1, 0, len(places), width), persistent=False)
        self.register_buffer(
            "common", torch.zeros(1, len(places), 2 + 2 * self.dim), persistent=False
        )

    def forward(self, batch: FLMBatch) -> Tensor:
        """-> (E, T)"""
        users, items, edges = batch.users, batch.items, batch.edges
        assert users is not None, "labels are those of users"
        assert items is not None, "and of items"
        fold = torch.zeros_like(users.row)
        if self.training:
            fold = 1 + users.row % (self.table.shape[0] - 1)
        common = self.common[fold]  # (U, T, ...)
        mean, noise, prior, _ = common.split([1, 1, self.dim, self.dim], dim=-1)
        shape = self.dim, self.dim
        _, seen, told, cross, second = self._parts(fold[:, None], items.row[users.history])
        label, is_known, is_event = self._labels(users)
        weight = is_known / noise[:, None]  # (U, L, T, 1)
        pulled = weight * (seen * (label - mean[:, None]) - cross)
        precision = (weight * second).unflatten(-1, shape)
        met = is_event[:, :, None, None].to(told.dtype)
        count = met.expand(label.shape)
        per_event = torch.cat([pulled, met * told, precision.flatten(3), count], dim=-1)
        other = self._others(per_event, users, edges.user, edges.step)  # (E, T, ...)
        pulled, told, precision, count = other.split([self.dim, self.dim, self.dim**2, 1], dim=-1)
        own = prior[edges.user]
        pulled = pulled + own * told / count.clamp(min=1).sqrt()
        precision = precision.unflatten(-1, shape) + torch.diag_embed(own)
        row = torch.cholesky_solve(pulled[..., None], torch.linalg.cholesky(precision)).squeeze(-1)
        bias, seen, *_ = self._parts(fold[edges.user], items.row[edges.item])
        return (mean[edges.user] + bias + (row * seen).sum(-1, keepdim=True)).squeeze(-1)

    def grow(self, num_more: int) -> None:
        """Make room for more items, to score with alone: what `with_cold` is to fill."""
        self.table = nn.functional.pad(self.table[:1], (0, 0, 0, 0, 0, num_more))
        self.common = self.common[:1]

    def _parts(self, fold: Tensor, item: Tensor) -> tuple[Tensor, ...]:
        """-> of items, each (..., T, its width): b, E[a], told, E[a b], E[a a']"""
        d = self.dim
        return self.table[fold, item].split([1, d, d, d, d * d], dim=-1)

    def _labels(self, users: UserRows) -> tuple[Tensor, Tensor, Tensor]:
        """-> (U, L, T, 1) labels of the events, and whether they are known; (U, L) is an event"""
        place = torch.arange(users.history.shape[1], device=users.history.device)
        is_event = place < users.num_events[:, None]
        label = users.event_labels[:, :, list(self.places), None]
        return label.nan_to_num(), label.isfinite() & is_event[:, :, None, None], is_event

    def _others(self, per_event: Tensor, users: UserRows, user: Tensor, step: Tensor) -> Tensor:
        """(U, L, T, F) -> (E, T, F) summed over the events that an edge may read"""
        if not self.any_order:
            before = torch.cat([torch.zeros_like(per_event[:, :1]), per_event], dim=1).cumsum(1)
            return before[user, step]
        is_inside = (step < users.num_events[user])[:, None, None]
        own = per_event[user, step.clamp(max=per_event.shape[1] - 1)]
        return per_event.sum(1)[user] - own * is_inside


def packed(factors: Factors) -> tuple[Tensor, Tensor]:
    """-> (items, W): an item's bias, E[a], told, E[a b] and E[a a'] with a = (1, v); (2 + 2 d,):
    mean, noise, precision of users' rows, variance of items' rows"""
    seen, second, cross = moments(factors.row, factors.covariance)
    table = torch.cat([factors.row[:, :1], seen, factors.told, cross, second.flatten(1)], dim=1)
    of_all = factors.mean[None], factors.noise[None], factors.user_precision, factors.item_variance
    common = torch.cat(of_all)
    return table, common


def with_cold(table: Tensor, common: Tensor, warm: Tensor, cold: Tensor, content: Tensor) -> Tensor:
    """`LabelFactors.table` with rows for the cold items as content (items, F) foretells them from
    the warm ones; around that they are as uncertain as items are before anybody met them."""
    filled, d = table.clone(), (common.shape[-1] - 2) // 2
    foretold = foretelling(content, warm, cold)
    for fit, of_fit in zip(filled, common, strict=True):
        known = foretold(fit[warm, :, : 1 + 2 * d].flatten(1)).unflatten(1, (fit.shape[1], -1))
        bias, seen = known[..., :1], known[..., 1 : 1 + d]
        seen[..., 0] = 1
        variance = of_fit[:, -d:].clone()  # (T, d)
        variance[:, 0] = 0
        second = seen[..., None] * seen[..., None, :] + torch.diag_embed(variance)
        fit[cold] = torch.cat([known, seen * bias, second.flatten(2)], dim=-1)
    return filled
