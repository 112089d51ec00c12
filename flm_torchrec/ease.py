"""EASE (Steck, 2019): the linear item-item model without self-similarity, in closed form."""

import torch
from torch import Tensor


def ease_weights(counts: Tensor, l2: float) -> Tensor:
    """counts (items, items) users who met both items, changed in place -> W (items, items) with a
    diagonal of 0, minimising `sum |x W - x|^2 + l2 |W|^2` over the users' sets of items x.

    Takes 2 items^3 operations.
    """
    counts.diagonal().add_(l2)
    precision = torch.cholesky_inverse(torch.linalg.cholesky(counts))
    return (precision / -precision.diagonal()).fill_diagonal_(0)
