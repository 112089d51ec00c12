"""Least squares without negative parts, and how good a prediction is.

Example:
    fixed, per_byte = nonnegative([[1, 1e3], [1, 1e6]], [0.1, 0.5])
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike


def nonnegative(features: Sequence[Sequence[float]], wanted: Sequence[float]) -> list[float]:
    """Weights of each feature, none below 0, that come closest to `wanted` in relative terms.

    All sets of features are tried, so there should be few.
    """
    goal = np.asarray(wanted, dtype=np.float64)
    table = np.asarray(features, dtype=np.float64) / goal[:, None]
    size = np.abs(table).max(0)
    size[size == 0] = 1.0
    table = table / size
    count = table.shape[1]
    best, weights = np.inf, np.zeros(count)
    for number in range(1, count + 1):
        for chosen in combinations(range(count), number):
            found, *_ = np.linalg.lstsq(table[:, chosen], np.ones(len(goal)), rcond=None)
            if (found < 0).any():
                continue
            error = float(np.square(table[:, chosen] @ found - 1).sum())
            if error < best - 1e-12:
                best, weights = error, np.zeros(count)
                weights[list(chosen)] = found
    return [float(value) for value in weights / size]


def median_error(predicted: ArrayLike, measured: ArrayLike) -> float:
    """The median of the errors in relation to what was measured."""
    truth = np.asarray(measured)
    return float(np.median(np.abs(np.asarray(predicted) - truth) / truth))


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's; equal values share their mean rank, and 0 where one side is constant."""
    one, other = _ranks(np.asarray(first)), _ranks(np.asarray(second))
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[place]
