"""How sure it is that one recommender beats another on the same users.

Example:
    ratio = ratio_of_means(ours.per_user["ndcg@10"], theirs.per_user["ndcg@10"])
    print(f"{ratio.value:.2f} times the peer, 95% between {ratio.low:.2f} and {ratio.high:.2f}")
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK = 256  # resamples at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure and the interval that the bootstrap gives it."""

    value: float
    low: float
    high: float


def ratio_of_means(
    ours: NDArray[np.floating],
    theirs: NDArray[np.floating],
    *,
    seed: int = 0,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Estimate:
    """The mean of `ours` (n,) over that of `theirs` (n,), and its percentile interval.

    Entry i of both is of the same user: users are drawn anew, each with both of its figures
    (paired bootstrap; Efron and Tibshirani, 1993). Average over training seeds before.
    """
    if ours.shape != theirs.shape or ours.ndim != 1 or len(ours) == 0:
        raise ValueError(
            f"ratio_of_means: needs the same users twice, got {ours.shape} and {theirs.shape}"
        )
    if not theirs.mean() > 0:
        raise ValueError(f"ratio_of_means: the mean below is {theirs.mean()}; allowed: above 0")
    rng = np.random.default_rng(seed)
    both = np.stack([ours, theirs], axis=1).astype(np.float64)  # (n, 2)
    sums = [
        both[rng.integers(len(ours), size=(min(_BLOCK, resamples - start), len(ours)))].sum(1)
        for start in range(0, resamples, _BLOCK)
    ]
    above, below = np.concatenate(sums).T
    # A resample in which they found nothing is one that ours wins, or nobody does.
    ratios = np.full(resamples, np.inf)
    np.divide(above, below, out=ratios, where=below > 0)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    return Estimate(value=float(ours.mean() / theirs.mean()), low=float(low), high=float(high))
