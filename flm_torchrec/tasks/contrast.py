"""Pure losses over scores: a softmax against negatives, and agreement of two views."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def softmax_loss(positive: Tensor, negatives: Tensor, is_masked: Tensor) -> Tensor:
    """-log softmax of the positive among itself and the negatives that are not masked.

    positive (E,), negatives (E, N), is_masked (E, N) bool -> (E,). With negatives drawn from q,
    pass `scores - log(N q)` (Bengio & Senecal, 2008): then the expectation is the full softmax.
    """
    negatives = negatives.masked_fill(is_masked, float("-inf"))
    return torch.logsumexp(torch.cat([positive[:, None], negatives], dim=1), dim=1) - positive


def group_softmax_loss(score: Tensor, is_negative: Tensor, group: Tensor, groups: int) -> Tensor:
    """-log softmax of each row among itself and the negatives of its group; 0 where the group has
    none.

    score (E,), is_negative (E,) bool, group (E,) int64 in 0..groups - 1 -> (E,).
    """
    log_total, is_there = _group_log_sum(score, is_negative, group, groups)
    return torch.where(is_there[group], F.softplus(log_total[group] - score), 0.0)


def group_log_softmax(score: Tensor, is_in: Tensor, group: Tensor, groups: int) -> Tensor:
    """log softmax of each row among those of its group that are in it.

    score (E,), is_in (E,) bool, group (E,) int64 in 0..groups - 1 -> (E,), any number where not in.
    """
    return score - _group_log_sum(score, is_in, group, groups)[0][group]


def _group_log_sum(
    score: Tensor, is_in: Tensor, group: Tensor, groups: int
) -> tuple[Tensor, Tensor]:
    """-> (groups,) log of the sum of exp over the rows that are in, 0 without any; (groups,) is
    there any?"""
    chosen = score.masked_fill(~is_in, float("-inf"))
    none = torch.full((groups,), float("-inf"), dtype=score.dtype, device=score.device)
    highest = none.scatter_reduce(0, group, chosen.detach(), reduce="amax")
    is_there = highest.isfinite()
    # A group without any stays finite: what is 0 has no gradient, what is infinite has NaN.
    highest = torch.where(is_there, highest, 0.0)
    total = torch.zeros_like(none).scatter_add(0, group, (chosen - highest[group]).exp())
    return highest + torch.where(is_there, total, 1.0).log(), is_there


def kl_divergence(teacher: Tensor, student: Tensor, is_masked: Tensor) -> Tensor:
    """KL(softmax(teacher) || softmax(student)) over what is not masked; 0 where all is.

    teacher (E, C), student (E, C), is_masked (E, C) bool -> (E,).
    """
    # A finite floor instead of -inf: what is masked has no share, not a NaN.
    log_share, log_student = (
        scores.masked_fill(is_masked, -1e4).log_softmax(1) for scores in (teacher, student)
    )
    return (log_share.exp() * (log_share - log_student)).sum(1)


def info_nce(
    left: Tensor,
    right: Tensor,
    scale: Tensor,
    is_there: Tensor | None = None,
    same: Sequence[Tensor] = (),
) -> Tensor:
    """Symmetric InfoNCE (Radford et al., 2021): row i of `left` belongs to row i of `right`.

    left, right (A, D), scale () = 1 / temperature, is_there (A,) bool the rows that count,
    same (A,) each, whose the rows are: those that agree in any are no negatives of each other
    -> scalar; 0 without rows.
    """
    if is_there is None:
        is_there = torch.ones_like(left[:, 0], dtype=torch.bool)
    is_own = torch.eye(left.shape[0], dtype=torch.bool, device=left.device)
    is_negative = is_there[:, None] & is_there
    for owner in same:
        is_negative = is_negative & (owner[:, None] != owner)
    logits = scale * (F.normalize(left, dim=1) @ F.normalize(right, dim=1).T)
    # A finite floor instead of -inf: a row that isn't there gets weight 0, not NaN.
    logits = logits.masked_fill(~(is_negative | (is_own & is_there)), -1e4)
    both = torch.stack([logits, logits.T]).log_softmax(2).diagonal(dim1=1, dim2=2)  # (2, A)
    return -(both * is_there).sum() / (2 * is_there.sum().clamp(min=1))
