"""Metrics of the order within impressions: what was shown at once, some of it wanted.

Example:
    impression_metrics(impression, is_wanted, score)["group_auc"]
"""

import numpy as np
from numpy.typing import NDArray


def impression_metrics(
    impression: NDArray[np.int64], is_wanted: NDArray[np.bool_], score: NDArray[np.floating]
) -> dict[str, float]:
    """Means over the impressions that hold both: group_auc, mrr (of the first wanted row) and
    ndcg@5 and ndcg@10; nan without such impressions.

    impression (n,) any number each, is_wanted (n,), score (n,). Of equal scores the auc counts one
    half, the others put what is not wanted first.
    """
    _, group = np.unique(impression, return_inverse=True)
    size = np.bincount(group)
    wanted = np.bincount(group, is_wanted).astype(np.int64)
    has_both = (wanted > 0) & (wanted < size)
    order = np.lexsort((is_wanted, -score, group))
    start = size.cumsum() - size
    place = np.empty(len(group), dtype=np.int64)  # from 1, in its impression
    place[order] = 1 + np.arange(len(group)) - start[group[order]]
    reciprocal = np.zeros(len(size))
    np.maximum.at(reciprocal, group[is_wanted], 1 / place[is_wanted])
    each = {"group_auc": _auc(group, is_wanted, score), "mrr": reciprocal}
    gain = 1 / np.log2(np.arange(2, 12))
    for k in (5, 10):
        is_hit = is_wanted & (place <= k)
        dcg = np.bincount(group[is_hit], gain[place[is_hit] - 1], minlength=len(size))
        each[f"ndcg@{k}"] = dcg / gain.cumsum()[wanted.clip(1, k) - 1]
    if not has_both.any():
        return dict.fromkeys(each, float("nan"))
    return {name: float(values[has_both].mean()) for name, values in each.items()}


def _auc(
    group: NDArray[np.int64], is_wanted: NDArray[np.bool_], score: NDArray[np.floating]
) -> NDArray[np.float64]:
    """(groups,) chance that a wanted row of the group scores above one that is not."""
    order = np.lexsort((score, group))
    group, is_wanted, score = group[order], is_wanted[order], score[order]
    size, wanted = np.bincount(group), np.bincount(group, is_wanted)
    is_new = np.append(True, (np.diff(group) != 0) | (np.diff(score) != 0))
    tie = is_new.cumsum() - 1
    first, count = np.flatnonzero(is_new), np.bincount(tie)
    rank = (first + (count + 1) / 2)[tie] - (size.cumsum() - size)[group]
    above = np.bincount(group, rank * is_wanted) - wanted * (wanted + 1) / 2
    return above / np.maximum(1, wanted * (size - wanted))
