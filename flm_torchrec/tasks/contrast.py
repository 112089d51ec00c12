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


def info_nce(left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE (Radford et al., 2021): row i of `left` belongs to row i of `right`.

    left, right (A, D), scale () = 1 / temperature -> scalar; 0 without rows.
    """
    if left.shape[0] == 0:
        return (left.sum() + right.sum()) * scale
    cosine = F.normalize(left, dim=1) @ F.normalize(right, dim=1).T
    target = torch.arange(left.shape[0], device=left.device)
    logits = scale * cosine
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
