"""How the views of the items lie in the joint space, and whether one of them has collapsed.

Example:
    found = diagnose(("features", "title"), views, present, weights, fused)
    print(found.figures["title"]["effective_rank"], *found.collapses)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import normalize

NEAREST = 10
LEAST_RANK_SHARE = 0.05
MOST_UNIFORMITY = -0.05  # all rows within about 10 degrees
FUSED = "fused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostics:
    """The figures of every view, those of the fused rows, and what is wrong with them."""

    figures: dict[str, dict[str, float]]  # by view, then by name; what is undefined is left out
    collapses: list[str]  # a sentence for each collapse


def alignment(one: Tensor, other: Tensor) -> float:
    """mean ||u_i - v_i||^2 over the rows u, v of unit length of two views of the same n items.

    0: the views agree, 2: they are unrelated, 4: they are opposite. (n, D) each, n > 0. Wang and
    Isola, Understanding contrastive representation learning, ICML 2020, alpha = 2.
    """
    return float((normalize(one) - normalize(other)).square().sum(1).mean())


def uniformity(rows: Tensor) -> float:
    """log mean exp(-2 ||u_i - u_j||^2) over the pairs i < j of n rows u of unit length.

    0: all rows are alike, -4: any two of them are orthogonal. (n, D), n > 1. Wang and Isola, ICML
    2020, t = 2.
    """
    return float(torch.pdist(normalize(rows)).square().mul(-2).exp().mean().log())


def effective_rank(rows: Tensor) -> float:
    """exp(-sum p_i log p_i) of the singular values s, p = s / sum s: from 1 to min(n, D).

    0 where every entry is 0. (n, D). Roy and Vetterli, The effective rank, EUSIPCO 2007.
    """
    singular = torch.linalg.svdvals(rows.double())
    total = singular.sum()
    return float(torch.special.entr(singular / total).sum().exp()) if total > 0 else 0.0


def recall_at(nearest: int, query: Tensor, key: Tensor) -> float:
    """Share of the rows of `query` that have the same item's row of `key` among their `nearest`
    by cosine; of equally near ones each is as likely to be among them. (n, D) each, n > 0."""
    cosine = normalize(query) @ normalize(key).T
    own = cosine.diagonal()[:, None]
    nearer, equally_near = (cosine > own).sum(1), (cosine == own).sum(1)
    return float(((nearest - nearer) / equally_near).clamp(0, 1).mean())


def _spread(rows: Tensor) -> dict[str, float]:
    return {"uniformity": uniformity(rows), "effective_rank": effective_rank(rows)}


def collapses(view: str, rows: Tensor, figures: dict[str, float]) -> list[str]:
    """What tells that the rows (n, D) of a view have collapsed: an effective rank that is a small
    share of min(n, D), or a uniformity near 0."""
    told = []
    most = min(rows.shape)
    least = LEAST_RANK_SHARE * most
    rank, spread = figures["effective_rank"], figures["uniformity"]
    if rank < least:
        told.append(
            f"collapse of view {view}: effective rank {rank:.3g} is below {least:.3g} "
            f"({LEAST_RANK_SHARE:.0%} of {most})"
        )
    if spread > MOST_UNIFORMITY:
        told.append(
            f"collapse of view {view}: uniformity {spread:.3g} is above {MOST_UNIFORMITY} "
            "(0: all rows are alike)"
        )
    return told


def diagnose(
    names: Sequence[str], views: Tensor, present: Tensor, weights: Tensor, fused: Tensor
) -> Diagnostics:
    """Figures of the V named views of n items, over the rows where a view is present.

    Every view has its alignment with each view before it, and how often it finds the other's row of
    the same item; names of figures tell the other view unless it is the first. views (V, n, D),
    present (V, n) bool, weights (n, V) of the fusion, fused (n, D).
    """
    figures: dict[str, dict[str, float]] = {}
    told: list[str] = []
    spread = [*zip(names, views, present, strict=True), (FUSED, fused, present.any(0))]
    for name, rows, is_there in spread:
        if int(is_there.sum()) > 1:
            figures[name] = _spread(rows[is_there])
            told += collapses(name, rows[is_there], figures[name])
    for (first, other, is_other), (name, rows, is_there) in combinations(spread[:-1], 2):
        both, beside = is_other & is_there, "" if first == names[0] else f"/{first}"
        if both.any():
            figures.setdefault(name, {}).update(
                {
                    f"alignment{beside}": alignment(other[both], rows[both]),
                    f"recall@{NEAREST}{beside}": recall_at(NEAREST, rows[both], other[both]),
                }
            )
    for name, weight in zip(names, weights.mean(0).tolist(), strict=True):
        figures.setdefault(name, {})["fusion_weight"] = weight
    return Diagnostics(figures=figures, collapses=told)
