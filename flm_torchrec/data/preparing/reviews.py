"""Texts of items made of what their training interactions say."""

import numpy as np
from numpy.typing import NDArray

from flm_torchrec.data.preparing.columns import Columns
from flm_torchrec.data.preparing.split import by_user_time


def review_texts(
    columns: Columns,
    name: str,
    most: int,
    *,
    item: NDArray[np.int32],  # (n,) rows, as all that follows in the source's order
    time: NDArray[np.float64] | None,
    is_train: NDArray[np.bool_],
    num_items: int,  # the unknown one included
) -> list[str]:
    """(num_items,) the `most` latest texts of each, the latest first: an encoder cuts the end."""
    rows = np.flatnonzero(is_train & columns.is_there(name))
    order = by_user_time(item[rows], rows if time is None else time[rows])
    rows = rows[order]
    ends = np.cumsum(np.bincount(item[rows], minlength=num_items))
    is_latest = ends[item[rows]] - np.arange(len(rows)) <= most
    rows = rows[is_latest]
    texts: list[list[str]] = [[] for _ in range(num_items)]
    for owner, text in zip(item[rows].tolist(), columns.texts(name, rows), strict=True):
        texts[owner].append(text)
    return [" ".join(reversed(found)) for found in texts]
