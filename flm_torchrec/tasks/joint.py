"""Two binary labels of which one holds only where the other does (ESMM, Ma et al., SIGIR 2018)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def log_both(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two logits -> the logs of p q and of 1 - p q, exact however near 0 or 1."""
    log_yes = F.logsigmoid(first) + F.logsigmoid(second)
    # 1 - p q = p q (exp(-a) + exp(-b) + exp(-a - b))
    odds_against = torch.stack([-first, -second, -first - second]).logsumexp(0)
    return log_yes, log_yes + odds_against


def joint_loss(
    logits: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor], weights: tuple[Tensor, Tensor]
) -> Tensor:
    """Of what a label is given and of the label, each (E,) -> () negative log-likelihood of both,
    over the edges where that is known: a label that is given 0 is 0, known or not."""
    (given, label), (given_weight, label_weight) = labels, weights
    weight = given_weight * ((given == 0) | (label_weight > 0))
    both = given * label
    log_yes, log_no = log_both(*logits)
    return -(weight * (both * log_yes + (1 - both) * log_no)).sum()
