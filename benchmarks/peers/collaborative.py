"""Item-item models: their weights, by which a history is scored.

Libraries: implicit (cosines), RecTools (EASE), scikit-learn (the elastic nets of SLIM).
"""

from typing import Any

import numpy as np
import pandas as pd
from flm_benchmarks.peers.split_log import SplitLog
from flm_benchmarks.peers.units import Setting
from implicit.nearest_neighbours import CosineRecommender
from numpy.typing import NDArray
from rectools.dataset import Dataset, IdMap, Interactions
from rectools.models import EASEModel
from scipy import sparse
from sklearn.linear_model import ElasticNet


def item_knn(met: sparse.csr_matrix, setting: Setting) -> sparse.csr_matrix:
    """(M, M) cosines between the users of two items; each item keeps its nearest `neighbours`."""
    neighbours = setting["neighbours"] or met.get_shape()[1]
    model = CosineRecommender(K=neighbours + 1, num_threads=1)  # the nearest of all is itself
    model.fit(met, show_progress=False)
    return model.similarity


def ease(met: sparse.csr_matrix, setting: Setting) -> NDArray[np.float32]:
    """(M, M) the linear model without self-similarity (Steck, 2019)."""
    users, items = met.nonzero()
    model = EASEModel(regularization=setting["l2"])
    shape = met.get_shape()
    model.fit(dataset_of(users, items, np.zeros(len(users), np.int64), shape))
    weights = np.zeros((shape[1], shape[1]), np.float32)
    size = len(model.weight)  # up to the last item that anybody met
    weights[:size, :size] = model.weight
    return weights


def slim(met: sparse.csr_matrix, setting: Setting) -> sparse.csr_matrix:
    """(M, M) an elastic net an item, of positive weights (Ning and Karypis, 2011)."""
    model = ElasticNet(
        alpha=setting["alpha"],
        l1_ratio=setting["l1_ratio"],
        positive=True,
        fit_intercept=False,
        copy_X=False,
        selection="random",
        random_state=0,
        max_iter=100,
        tol=1e-3,
    )
    columns = sparse.csc_matrix(met, dtype=np.float32)
    weights = []
    for item in range(len(columns.indptr) - 1):
        entries = slice(columns.indptr[item], columns.indptr[item + 1])
        target = columns[:, [item]].toarray().ravel()
        own = columns.data[entries].copy()
        columns.data[entries] = 0  # an item is no feature of itself
        model.fit(columns, target)
        columns.data[entries] = own
        weights.append(sparse.csc_matrix(model.sparse_coef_.T))
    return sparse.csr_matrix(sparse.hstack(weights))


def dataset_of(
    user: NDArray[np.integer], item: NDArray[np.integer], time: NDArray[np.int64], shape: Any
) -> Dataset:
    """RecTools' form of interactions; the row numbers stay what they are."""
    columns = {"user_id": user, "item_id": item, "weight": np.ones(len(user), np.float32)}
    frame = pd.DataFrame(columns | {"datetime": pd.to_datetime(time, unit="s")})
    users, items = (IdMap.from_values(np.arange(size)) for size in shape)
    return Dataset(users, items, Interactions.from_raw(frame, users, items))


def history_scores(log: SplitLog, known: NDArray[np.bool_], weights: Any) -> NDArray[np.float32]:
    """(num_users, num_items) the sum of the weights of what each user is known to have met."""
    scores = log.matrix(known) @ weights
    dense = scores.toarray() if sparse.issparse(scores) else scores
    return np.asarray(dense, np.float32)
