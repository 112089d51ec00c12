"""What the data tell of a user: a history, features or nothing, and what then is a fair guess."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flm_torchrec.data.dataset import LATER, Column, Dataset, Entity
from flm_torchrec.data.sampling import Sequences

HISTORY, FEATURES, POPULARITY = "history", "features", "popularity"


def made_by(dataset: Dataset, seqs: Sequences, *, window: int) -> NDArray[np.str_]:
    """(user rows,) what recommendations for each user can be made by, the best there is: events
    of `seqs` where a window has room for any, features (an id that training met among them), or
    what others took lately."""
    assert dataset.users is not None, "there are users"
    has_features = _has_value(dataset.users, tuple(dataset.users.columns.values()))
    cold = np.where(has_features, FEATURES, POPULARITY)
    return np.where(np.diff(seqs.offsets).clip(max=window) > 0, HISTORY, cold)


def recent_popularity(
    dataset: Dataset, *, share: float = 0.1, prior: float = 100.0
) -> NDArray[np.float32]:
    """(item rows,) how likely each item is what a user wants of whom nothing is known.

    Of the latest `share` of what users wanted, as far as the data hold it: the frequencies among
    users who tell no feature either. As many as `prior` of everybody's are added, which decide
    where those users are few.
    """
    interactions, users = dataset.interactions, dataset.users
    assert users is not None, "there are users"
    assert dataset.items is not None, "there are items"
    is_held = interactions.part < LATER
    wanted = np.flatnonzero(is_held & interactions.positive & (interactions.item > 0))
    by_time = wanted[np.argsort(interactions.time[wanted], kind="stable")]
    latest = by_time[-max(1, round(share * len(by_time))) :]
    tells_nothing = ~_has_value(users, tuple(users.columns.values())[users.num_ids :])
    is_alike = tells_nothing[interactions.user[latest]]
    num_items = len(dataset.items.ids)
    everybody = np.bincount(interactions.item[latest], minlength=num_items)
    alike = np.bincount(interactions.item[latest][is_alike], minlength=num_items)
    guess = alike + prior * everybody / max(1, everybody.sum())
    return (guess / max(1e-12, guess.sum())).astype(np.float32)


def _has_value(entity: Entity, columns: Sequence[Column]) -> NDArray[np.bool_]:
    """(rows,) whether one of the columns, the numbers or the vectors says anything."""
    has = (entity.numbers != 0).any(1)
    for vectors in entity.vectors.values():
        has |= (vectors != 0).any(1)
    for column in columns:
        has[column.owners()[column.values > 0]] = True
    return has
