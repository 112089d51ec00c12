"""Fusion loss: what all views together rank, each view alone learns to rank."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.model import Views
from flm_torchrec.tasks.contrast import group_log_softmax, kl_divergence
from flm_torchrec.tasks.ranking import candidate_scores, edge_scores, is_no_negative


def one_view(views: Views, view: int) -> Views:
    """The same with the item rows of a single view in place of the fused ones."""
    assert views.items is not None
    return replace(views, items=replace(views.items, row=views.items.views[view]))


# Views (V, M, D), present (V, M) bool -> rows (M, D) fused of all that are there, and weights.
Fuse = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def all_views(views: Views, fuse: Fuse | None) -> Views:
    """The same with the item rows that `fuse` makes, where view dropout may have hidden views."""
    items = views.items
    assert items is not None
    if fuse is None:
        return views
    with torch.no_grad():
        return replace(views, items=replace(items, row=fuse(items.views, items.present)[0]))


class FusionLoss(nn.Module):
    """KL(fused || view), the mean over the views, of the distributions over an edge's own item and
    the negatives that `Ranking` makes; the fused one is a teacher (Hinton et al., 2015) that gets
    no gradient.

    The teacher's rows are those of the ranking or, with view dropout, what `fuse` makes of all
    views. Rows that a view lacks are left out on both sides.
    """

    def __init__(self, *, mask_seen: bool, fuse: Fuse | None = None) -> None:
        super().__init__()
        self.mask_seen = mask_seen
        self.fuse = fuse

    def forward(self, views: Views, batch: FLMBatch) -> Tensor:
        assert views.items is not None
        assert batch.items is not None
        edges, num_negatives = batch.edges, batch.items.log_q.shape[0]
        is_masked = nn.functional.pad(is_no_negative(batch, mask_seen=self.mask_seen), (1, 0))
        fused = self._scores(all_views(views, self.fuse), batch).detach()  # (E, 1 + N)
        losses = []
        for view, present in enumerate(views.items.present):
            lacks = torch.cat(
                [~present[edges.item, None], (~present[-num_negatives:]).expand_as(fused[:, 1:])], 1
            )
            alone = self._scores(one_view(views, view), batch)
            losses.append((edges.weight * kl_divergence(fused, alone, is_masked | lacks)).sum())
        return torch.stack(losses).mean()

    def _scores(self, views: Views, batch: FLMBatch) -> Tensor:
        """(E, 1 + N), of each edge's item and of the negatives."""
        assert batch.items is not None
        positive, negatives = candidate_scores(views, batch)
        return torch.cat([positive[:, None], negatives - batch.items.log_q], dim=1)


class LoggedFusionLoss(nn.Module):
    """The same over what was shown together, as `LoggedRanking` ranks it."""

    def __init__(self, *, fuse: Fuse | None = None) -> None:
        super().__init__()
        self.fuse = fuse

    def forward(self, views: Views, batch: FLMBatch) -> Tensor:
        assert views.items is not None
        edges = batch.edges
        is_shown = edges.is_negative | (edges.weight > 0)
        fused = edge_scores(all_views(views, self.fuse), batch).detach()
        groups = len(fused)
        weight = torch.zeros_like(fused).index_add(0, edges.impression, edges.weight)
        losses = []
        for view, present in enumerate(views.items.present):
            alone = edge_scores(one_view(views, view), batch)
            is_there = is_shown & present[edges.item]
            teacher, student = (
                group_log_softmax(score, is_there, edges.impression, groups)
                for score in (fused, alone)
            )
            share = teacher.masked_fill(~is_there, float("-inf")).exp()
            losses.append((weight[edges.impression] * share * (teacher - student)).sum())
        return torch.stack(losses).mean()
