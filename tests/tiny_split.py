"""A split log of a few interactions, for tests of the peers."""

from collections.abc import Sequence

import numpy as np
from flm_benchmarks.peers.split_log import SplitLog
from scipy import sparse


def tiny_split(
    user: Sequence[int], item: Sequence[int], part: Sequence[int], num_items: int = 7
) -> SplitLog:
    """Ratings go 1, 2, 3, 4, 5, 1, ...; users 0 and 1, items 0 to 2 have one feature each."""
    rows = len(user)
    num_users = max(user) + 1
    rating = 1 + np.arange(rows) % 5
    return SplitLog(
        user=np.array(user),
        item=np.array(item),
        time=np.arange(rows),
        order=np.arange(rows),
        part=np.array(part, np.int8),
        like=(rating >= 4).astype(np.float32),
        rating=rating.astype(np.float32),
        num_users=num_users,
        num_items=num_items,
        user_features=sparse.csr_matrix(np.eye(num_users, 2, dtype=np.float32)),
        item_features=sparse.csr_matrix(np.eye(num_items, 3, dtype=np.float32)),
        item_numbers=np.zeros((num_items, 0), np.float32),
        item_text=np.zeros((num_items, 0), np.float32),
        title=np.array([f"item {row}" for row in range(num_items)]),
    )
