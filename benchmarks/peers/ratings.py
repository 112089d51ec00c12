"""Peers that tell the rating a user will give: `python -m flm_benchmarks.peers.ratings`.

Answers are ratings of the rows of a part, in their order; settings are chosen by RMSE. Libraries:
Surprise (biases, SVD), myFM (Bayesian factorisation machines by Gibbs sampling).
"""

import io
from collections.abc import Iterator
from contextlib import redirect_stderr
from functools import partial
from typing import Any

import myfm
import numpy as np
import pandas as pd
import surprise
from flm_benchmarks.peers.clicks import one_hot
from flm_benchmarks.peers.split_log import TRAIN, SplitLog
from flm_benchmarks.peers.units import Answer, Peer, Setting, main
from numpy.typing import NDArray
from scipy import sparse


def quality(log: SplitLog, rating: NDArray[np.float64], part: int) -> float:
    """Minus the RMSE."""
    return -float(np.sqrt(np.square(rating - log.rating[log.part == part]).mean()))


def by_surprise(algorithm: Any, log: SplitLog) -> Iterator[Answer]:
    """An algorithm of Surprise."""
    is_train = log.part == TRAIN
    columns = {"user": log.user, "item": log.item, "rating": log.rating.astype(float)}
    scale = float(log.rating.min()), float(log.rating.max())
    data = surprise.Dataset.load_from_df(
        pd.DataFrame(columns)[is_train], surprise.Reader(rating_scale=scale)
    )
    algorithm.fit(data.build_full_trainset())

    def answer(part: int) -> NDArray[np.float64]:
        rows = zip(log.user[log.part == part], log.item[log.part == part], strict=True)
        return np.array([algorithm.predict(user, item).est for user, item in rows])

    yield answer


def bias(log: SplitLog, setting: Setting, seed: int) -> Iterator[Answer]:
    """A mean, and what user and item add to it."""
    del seed
    options = {"method": "als", "n_epochs": 30}
    options |= {"reg_u": setting["l2_user"], "reg_i": setting["l2_item"]}
    return by_surprise(surprise.BaselineOnly(options, verbose=False), log)


def svd(log: SplitLog, setting: Setting, seed: int) -> Iterator[Answer]:
    """Biased matrix factorisation by stochastic gradients (Funk, Koren)."""
    algorithm = surprise.SVD(
        n_factors=setting["factors"],
        n_epochs=setting["epochs"],
        lr_all=setting["lr"],
        reg_all=setting["l2"],
        random_state=seed,
    )
    return by_surprise(algorithm, log)


def side(rows: int, blocks: list[sparse.csr_matrix]) -> tuple[sparse.csr_matrix, list[int]]:
    """(rows, sum of widths) a row's own column and the blocks beside it; -> and the widths."""
    blocks = [one_hot(np.arange(rows), rows), *blocks]
    joined = sparse.csr_matrix(sparse.hstack(blocks), dtype=np.float64)
    return joined, [width for block in blocks if (width := block.get_shape()[1])]


def scaled(sets: sparse.csr_matrix) -> sparse.csr_matrix:
    """Every row a set, at length 1."""
    sizes = np.maximum(np.diff(sets.indptr), 1)
    return sparse.csr_matrix(sparse.diags(1 / np.sqrt(sizes)) @ sets)


def bayesian(implicit: bool, log: SplitLog, setting: Setting, seed: int) -> Iterator[Answer]:
    """A Bayesian factorisation machine; `implicit`: a user is also the set of the items rated in
    training, an item that of its users (SVD++; Rendle et al., 2019)."""
    is_train = log.part == TRAIN
    met = log.matrix(is_train)
    user_blocks = [scaled(met)] if implicit else []
    item_blocks = [scaled(sparse.csr_matrix(met.T))] if implicit else []
    if setting["features"]:
        user_blocks.append(log.user_features)
        item_blocks.append(scaled(log.item_features))
    users, user_widths = side(log.num_users, user_blocks)
    items, item_widths = side(log.num_items, item_blocks)

    def blocks(rows: NDArray[np.bool_]) -> list[myfm.RelationBlock]:
        return [
            myfm.RelationBlock(log.user[rows], users),
            myfm.RelationBlock(log.item[rows], items),
        ]

    model = myfm.MyFMRegressor(rank=setting["rank"], random_seed=seed)
    with redirect_stderr(io.StringIO()):  # its progress
        model.fit(
            None,
            log.rating[is_train].astype(np.float64),
            X_rel=blocks(is_train),
            n_iter=setting["samples"],
            n_kept_samples=setting["samples"] * 9 // 10,
            group_shapes=user_widths + item_widths,
        )
    low, high = log.rating.min(), log.rating.max()
    yield lambda part: np.clip(model.predict(None, blocks(log.part == part)), low, high)


PEERS = {
    "bias": Peer(fit=bias, quality=quality, grid="bias"),
    "svd": Peer(fit=svd, quality=quality, grid="svd", is_random=True),
    "bayesian_fm": Peer(
        fit=partial(bayesian, False), quality=quality, grid="bayesian_fm", is_random=True
    ),
    "bayesian_fm_implicit": Peer(
        fit=partial(bayesian, True), quality=quality, grid="bayesian_fm_implicit", is_random=True
    ),
}

if __name__ == "__main__":
    raise SystemExit(main("ratings", PEERS))
