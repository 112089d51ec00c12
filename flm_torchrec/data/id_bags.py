"""The ids that the low-rank linear path reads: of items, and of histories by recency."""

from collections.abc import Mapping

import numpy as np
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from flm_torchrec.data.dataset import Column, Entity
from flm_torchrec.data.kjt import features_kjt
from flm_torchrec.data.moments import Moments, sessions
from flm_torchrec.data.recency import recency_weights
from flm_torchrec.data.sampling import Rows


class IdBags:
    """Bags of the ids of items, one key a column of the id; of an item that training never met
    there is none.

    Example:
        bags = IdBags(dataset.items, dataset.interactions.time)
        bags.of_items(np.array([3, 1]))  # stride 2
    """

    def __init__(self, items: Entity, time: Rows) -> None:
        self.time = time
        columns = list(items.columns.items())[: items.num_ids]
        self.columns: Mapping[str, Column] = {name: _known(column) for name, column in columns}

    def of_items(self, rows: Rows) -> KeyedJaggedTensor:
        """rows (M,) of the catalogue -> stride M"""
        return features_kjt(self.columns, rows)

    def of_moments(self, moments: Moments, user: Rows, step: Rows) -> KeyedJaggedTensor:
        """What stands before `step` (B,) in the windows `user` (B,) of the moments -> stride B,
        weighted by recency"""
        session = sessions(self.time[moments.event])
        weight = recency_weights(step, session[user])
        moment, event = np.nonzero(weight)
        ids = features_kjt(self.columns, moments.met[user[moment], event])
        count = ids.lengths().numpy().reshape(len(self.columns), -1)
        lengths = [np.bincount(moment, own, minlength=len(step)) for own in count]
        weights = np.tile(weight[moment, event], len(self.columns)).repeat(count.reshape(-1))
        return KeyedJaggedTensor(
            keys=ids.keys(),
            values=ids.values(),
            weights=torch.from_numpy(weights),
            lengths=torch.from_numpy(np.concatenate(lengths).astype(np.int32)),
        )


def _known(column: Column) -> Column:
    """The column without the unknown value."""
    is_known = np.asarray(column.values) > 0
    num_before = np.append(0, np.cumsum(is_known))
    return Column(
        values=column.values[is_known],
        offsets=num_before[column.bounds],
        num_embeddings=column.num_embeddings,
    )
