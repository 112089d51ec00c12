"""Models that reach items and users that training never saw.

All are in closed form. For the test they are fitted anew, with the chosen setting, on training and
validation: else what is held out for the choice would be cold as well. Libraries: RecTools (EASE),
implicit (cosines), scikit-learn (ridge).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from flm_benchmarks.peers import collaborative
from flm_benchmarks.peers.split_log import Search, Searching, SplitLog
from flm_benchmarks.peers.top_items import ndcg, popularity, top_items
from flm_benchmarks.peers.units import Answer, Peer, Setting
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import Ridge

# A log, what it is searched for, the rows trained on (n,) -> scores (num_users, num_items).
Model = Callable[[SplitLog, Search, NDArray[np.bool_], Setting], NDArray[np.float32]]


def cold_peer(name: str, model: Model, searching: Searching, *, k: int) -> Peer:
    """A model with the grid `name`, judged by NDCG@k in what it is searched for."""

    def quality(log: SplitLog, top: NDArray[np.int64], part: int) -> float:
        return ndcg(log, searching(log, part), top, k)

    return Peer(fit=partial(_fit, model, searching), quality=quality, grid=name)


def _fit(
    model: Model, searching: Searching, log: SplitLog, setting: Setting, seed: int
) -> Iterator[Answer]:
    del seed

    def answer(part: int) -> NDArray[np.int64]:
        search, is_train = searching(log, part), log.part < part
        scores = model(log, search, is_train, setting)
        # Of items that nobody has met there is no popularity to fall back on.
        is_warm = search.candidates[log.item[is_train]].any()
        alone = None if is_warm else np.zeros(log.num_users, bool)
        popular = popularity(log, is_train)
        return top_items(log, search, scores, popular, popular_alone=alone)

    yield answer


def content(log: SplitLog, *, text: float) -> NDArray[np.float32]:
    """(num_items, F) genres, year and the like, each row of length 1, beside its text of length
    `text`."""
    features = np.concatenate([log.item_features.toarray(), log.item_numbers], axis=1)
    return np.concatenate([directions(features), text * directions(log.item_text)], axis=1)


def directions(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every row at length 1; rows of zeros stay."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def by_content_knn(
    log: SplitLog, search: Search, is_train: NDArray[np.bool_], setting: Setting
) -> NDArray[np.float32]:
    """The sum of a candidate's cosines to what the user knows, of its nearest `neighbours`."""
    del is_train
    vectors = directions(content(log, text=setting["text"]))
    vectors -= setting["centred"] * vectors[1:].mean(0)
    vectors = directions(vectors)
    near = np.maximum(vectors @ vectors.T, 0)
    if setting["neighbours"] is not None:
        # A candidate listens to the items most like it; its own row stays out by being unknown.
        border = -np.sort(-near, axis=0)[setting["neighbours"]]
        near[near < border] = 0
    return np.asarray(log.matrix(search.known) @ near, np.float32)


def by_popularity(
    log: SplitLog, search: Search, is_train: NDArray[np.bool_], setting: Setting
) -> NDArray[np.float32]:
    """Popularity as content predicts it: ridge regression of its logarithm, the same for all."""
    del search
    counts = popularity(log, is_train)
    vectors = content(log, text=setting["text"])
    model = Ridge(alpha=setting["l2"]).fit(vectors[counts > 0], np.log1p(counts[counts > 0]))
    return np.tile(model.predict(vectors).astype(np.float32), (log.num_users, 1))


def by_ease_columns(
    log: SplitLog, search: Search, is_train: NDArray[np.bool_], setting: Setting
) -> NDArray[np.float32]:
    """The columns of EASE, what an item draws from the others, as content predicts them."""
    met = log.matrix(is_train)
    is_warm = met.getnnz(0) > 0
    weights = collaborative.ease(met, {"l2": setting["ease_l2"]})
    vectors = content(log, text=setting["text"])
    model = Ridge(alpha=setting["l2"]).fit(vectors[is_warm], weights[:, is_warm].T)
    columns = model.predict(vectors).T  # (num_items, num_items)
    return np.asarray(log.matrix(search.known) @ columns, np.float32)


def popular(
    log: SplitLog, search: Search, is_train: NDArray[np.bool_], setting: Setting
) -> NDArray[np.float32]:
    """How many met the item, the same for everybody."""
    del search, setting
    return np.tile(popularity(log, is_train), (log.num_users, 1))


def item_to_item(weights: Callable[[sparse.csr_matrix, Setting], Any]) -> Model:
    """The few clicks of a user by the weights of an item-item model."""

    def scores(
        log: SplitLog, search: Search, is_train: NDArray[np.bool_], setting: Setting
    ) -> NDArray[np.float32]:
        fitted = weights(log.matrix(is_train), setting)
        return collaborative.history_scores(log, search.known, fitted)

    return scores
