"""Pure losses over scores: a softmax against negatives, and agreement of two views."""

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
    negatives = score.masked_fill(~is_negative, float("-inf"))
    none = torch.full((groups,), float("-inf"), dtype=score.dtype, device=score.device)
    highest = none.scatter_reduce(0, group, negatives.detach(), reduce="amax")
    is_there = highest.isfinite()
    # A group without negatives stays finite: what is 0 has no gradient, what is infinite has NaN.
    highest = torch.where(is_there, highest, 0.0)
    total = torch.zeros_like(none).scatter_add(0, group, (negatives - highest[group]).exp())
    log_total = highest + torch.where(is_there, total, 1.0).log()
    return torch.where(is_there[group], F.softplus(log_total[group] - score), 0.0)


def info_nce(left: Tensor, right: Tensor, scale: Tensor, is_there: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE (Radford et al., 2021): row i of `left` belongs to row i of `right`.

    left, right (A, D), scale () = 1 / temperature, is_there (A,) bool the rows that count
    -> scalar; 0 without rows.
    """
    if is_there is None:
        is_there = torch.ones_like(left[:, 0], dtype=torch.bool)
    logits = scale * (F.normalize(left, dim=1) @ F.normalize(right, dim=1).T)
    # A finite floor instead of -inf: a row that isn't there gets weight 0, not NaN.
    logits = logits.masked_fill(~(is_there[:, None] & is_there), -1e4)
    both = torch.stack([logits, logits.T]).log_softmax(2).diagonal(dim1=1, dim2=2)  # (2, A)
    return -(both * is_there).sum() / (2 * is_there.sum().clamp(min=1))
