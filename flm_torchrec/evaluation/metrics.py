"""Metrics of ranking, of probabilities and of ratings, from tensors alone.

Example:
    hits = torch.tensor([[False, True, False]])  # the second recommended item was relevant
    ranking_metrics(hits, torch.tensor([1]), ks=(3,))["ndcg@3"]  # tensor([0.6309])
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def ranking_metrics(hits: Tensor, num_relevant: Tensor, ks: Sequence[int]) -> dict[str, Tensor]:
    """hr@k, recall@k, ndcg@k and mrr@k of each user, float64 (n,).

    hits (n, K) bool: is the item at that place of the ranking relevant; no item stands twice.
    num_relevant (n,) int, at least 1: how many items are, ranked or not. The ideal ranking of ndcg
    has min(k, num_relevant) hits in front.
    """
    deepest = hits.shape[1]
    if bad := [k for k in ks if not 1 <= k <= deepest]:
        raise ValueError(f"ks: {bad[0]} is outside 1..{deepest}, the depth of the ranking")
    place = torch.arange(1, deepest + 1, dtype=torch.float64, device=hits.device)
    gain = 1 / torch.log2(place + 1)
    ideal = gain.cumsum(0)
    hit = hits.double()
    found = hit.cumsum(1)  # (n, K) hits up to each place
    dcg = (hit * gain).cumsum(1)
    reciprocal = (hit / place).cummax(1).values
    metrics: dict[str, Tensor] = {}
    for k in ks:
        metrics[f"hr@{k}"] = (found[:, k - 1] > 0).double()
        metrics[f"recall@{k}"] = found[:, k - 1] / num_relevant
        metrics[f"ndcg@{k}"] = dcg[:, k - 1] / ideal[num_relevant.clamp(max=k) - 1]
        metrics[f"mrr@{k}"] = reciprocal[:, k - 1]
    return metrics


def auc(score: Tensor, label: Tensor) -> float:
    """Probability that a positive scores above a negative, ties counting one half.

    score (n,) of any scale, label (n,) 0 or 1. nan when there are no positives or no negatives.
    """
    positive = label > 0.5
    num_positive = int(positive.sum())
    num_negative = len(label) - num_positive
    if num_positive == 0 or num_negative == 0:
        return float("nan")
    _, tie, size = torch.unique(score, return_inverse=True, return_counts=True)
    mean_rank = size.double().cumsum(0) - (size.double() - 1) / 2  # of each tie, from 1
    above = mean_rank[tie[positive]].sum() - num_positive * (num_positive + 1) / 2
    return float(above / (num_positive * num_negative))


def log_loss(probability: Tensor, label: Tensor) -> float:
    """Mean negative log-likelihood of label (n,) 0 or 1 under probability (n,); nan without rows.

    Probabilities are kept one rounding step of their type away from 0 and 1.
    """
    if bool(((probability < 0) | (probability > 1)).any()):
        raise ValueError("log_loss: probabilities lie in 0..1; logits must go through a sigmoid")
    margin = torch.finfo(probability.dtype).eps
    p = probability.double().clamp(margin, 1 - margin)
    y = label.double()
    return float(-(y * p.log() + (1 - y) * (-p).log1p()).mean())


def rmse(prediction: Tensor, value: Tensor) -> float:
    """Root of the mean squared error of prediction (n,) against value (n,); nan without rows."""
    return float((prediction.double() - value.double()).square().mean().sqrt())


def mae(prediction: Tensor, value: Tensor) -> float:
    """Mean absolute error of prediction (n,) against value (n,); nan without rows."""
    return float((prediction.double() - value.double()).abs().mean())
