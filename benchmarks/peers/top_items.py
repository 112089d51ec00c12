"""From scores to the lists that peers are judged by, with NDCG to choose their settings by."""

import numpy as np
from flm_benchmarks.peers.split_log import Search, SplitLog
from numpy.typing import NDArray
from scipy import sparse

DEPTH = 20


def popularity(log: SplitLog, is_train: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(num_items,) users who met the item in the rows that `is_train` (n,)."""
    return np.asarray(log.matrix(is_train).sum(0), np.float32).ravel()


def top_items(
    log: SplitLog,
    search: Search,
    scores: NDArray[np.float32],
    popular: NDArray[np.float32],
    *,
    popular_alone: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """(num_users, DEPTH) the best candidates that a user doesn't know, best first; 0 where none is.

    scores (num_users, num_items); of equals the more popular comes first. Users of whom nothing is
    known, or with `popular_alone` (num_users,) those, get what is popular: no score is personal.
    """
    nothing_known = log.matrix(search.history).getnnz(1) == 0
    is_popular = nothing_known if popular_alone is None else popular_alone
    scores = np.where(is_popular[:, None], popular, scores)
    absent = log.matrix(search.known).toarray() > 0
    absent[:, ~search.candidates] = True
    scores[absent] = -np.inf
    by_popularity = np.argsort(-popular, kind="stable")
    order = np.argsort(-scores[:, by_popularity], axis=1, kind="stable")[:, :DEPTH]
    best = by_popularity[order]
    best = np.where(np.take_along_axis(scores, best, 1) == -np.inf, 0, best)
    return np.pad(best, ((0, 0), (0, DEPTH - best.shape[1])))


def ndcg(log: SplitLog, search: Search, top: NDArray[np.int64], k: int) -> float:
    """Mean over the users with something to find; the ideal has min(k, relevant) hits in front."""
    relevant = sparse.csr_matrix(log.matrix(search.wanted))
    count = relevant.getnnz(1)
    users = np.flatnonzero(count)
    hits = np.take_along_axis(relevant[users].toarray(), top[users, :k], 1) > 0
    gain = 1 / np.log2(np.arange(2, k + 2))
    ideal = gain.cumsum()[np.minimum(count[users], k) - 1]
    return float((hits @ gain / ideal).mean())
