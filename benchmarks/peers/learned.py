"""BPR and SASRec, round by round.

Libraries: implicit (BPR), RecTools (SASRec: softmax over all items at every position).
"""

import logging
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytorch_lightning
from flm_benchmarks.peers.collaborative import dataset_of
from flm_benchmarks.peers.split_log import TRAIN, SplitLog
from flm_benchmarks.peers.top_items import DEPTH
from flm_benchmarks.peers.units import Setting
from implicit.cpu.bpr import BayesianPersonalizedRanking
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from rectools.models import SASRecModel

Scores = Callable[[NDArray[np.bool_]], NDArray[np.float32]]  # history (n,) -> (users, items)
ROUNDS, EPOCHS = 60, 2


def bpr(log: SplitLog, setting: Setting, seed: int) -> Iterator[Scores]:
    """Matrix factorisation by pairs (Rendle et al., 2009): it knows users by training alone."""
    model = BayesianPersonalizedRanking(
        factors=setting["factors"],
        learning_rate=setting["lr"],
        regularization=setting["l2"],
        iterations=10,
        num_threads=1,
        random_state=np.random.default_rng(seed),  # a number would draw the same in every round
    )
    met = log.matrix(log.part == TRAIN)
    for _ in range(ROUNDS):
        model.fit(met, show_progress=False)
        yield lambda known: model.user_factors @ model.item_factors.T


def windows(
    log: SplitLog, is_wanted: NDArray[np.bool_], *, length: int, stride: int
) -> tuple[NDArray, ...]:
    """Windows of `length` targets and one event before them, each `stride` earlier than the last.

    -> window (m,), item (m,), time (m,), where time is the place in the sequence: RecTools trains
    on the last `length` targets of whatever it takes for a user, so each window is one.
    """
    user, item = log.user[is_wanted], log.item[is_wanted]
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    parts: list[tuple[NDArray, NDArray]] = []
    for start, stop in zip(starts, np.r_[starts[1:], len(user)], strict=True):
        for end in range(stop, start + 1, -stride):
            rows = np.arange(max(start, end - length - 1), end)
            parts.append((np.full(len(rows), len(parts)), rows))
    window, rows = (np.concatenate(column) for column in zip(*parts, strict=True))
    return window, item[rows], rows


def _trainer() -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", devices=1, enable_checkpointing=False, **quiet)


def sasrec(log: SplitLog, setting: Setting, seed: int) -> Iterator[Scores]:
    """Self-attention over the last items of a history (Kang and McAuley, 2018)."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    pytorch_lightning.seed_everything(seed, verbose=False)
    model = SASRecModel(
        n_blocks=setting["layers"],
        n_heads=setting["heads"],
        n_factors=setting["width"],
        dropout_rate=setting["dropout"],
        session_max_len=setting["length"],
        lr=setting["lr"],
        batch_size=setting["batch"],
        loss="softmax",
        get_trainer_func=_trainer,
    )
    cuts = {"length": setting["length"], "stride": setting["stride"]}
    window, item, time = windows(log, log.part == TRAIN, **cuts)
    train = dataset_of(window, item, time, (int(window.max()) + 1, log.num_items))
    for _ in range(ROUNDS):
        model.fit_partial(train, min_epochs=EPOCHS, max_epochs=EPOCHS)
        yield partial(_next_scores, model, log)


def _next_scores(
    model: SASRecModel, log: SplitLog, known: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """(num_users, num_items) for the item after each user's known ones; equally low for all but
    the best DEPTH."""
    user, item = log.user[known], log.item[known]
    shape = log.num_users, log.num_items
    history = dataset_of(user, item, np.flatnonzero(known), shape)
    found = model.recommend(
        np.unique(user), history, k=DEPTH, filter_viewed=True, on_unsupported_targets="ignore"
    )
    scores = np.full(shape, np.finfo(np.float32).min, np.float32)
    scores[found["user_id"], found["item_id"]] = found["score"]
    return scores
