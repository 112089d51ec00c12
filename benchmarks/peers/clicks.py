"""Peers that tell whether a user will like an item: `python -m flm_benchmarks.peers.clicks`.

Answers are probabilities of the rows of a part, in their order; settings and rounds are chosen by
log loss. Libraries: scikit-learn (logistic regression); FM and DeepFM are written here, in
factorisation.py, since DeepCTR-Torch asks a registry for news whenever it is imported.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from flm_benchmarks.peers.factorisation import DeepFM, padded
from flm_benchmarks.peers.split_log import TRAIN, SplitLog
from flm_benchmarks.peers.units import Answer, Peer, Setting, main
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch import Tensor, nn

ROUNDS = 30


def quality(log: SplitLog, probability: NDArray[np.float64], part: int) -> float:
    """Minus the log loss."""
    return -float(log_loss(log.like[log.part == part], probability))


def one_hot(rows: NDArray[np.int64], size: int) -> sparse.csr_matrix:
    """(n, size) 1 in each row's column."""
    return sparse.csr_matrix(
        (np.ones(len(rows), np.float32), rows, np.arange(len(rows) + 1)), shape=(len(rows), size)
    )


def logistic(log: SplitLog, setting: Setting, seed: int) -> Iterator[Answer]:
    """Logistic regression on user and item, and on their features."""
    del seed
    parts = [one_hot(log.user, log.num_users), one_hot(log.item, log.num_items)]
    if setting["features"]:
        parts += [log.user_features[log.user], log.item_features[log.item]]
    inputs = sparse.csr_matrix(sparse.hstack(parts))
    model = LogisticRegression(C=setting["c"], max_iter=1000)
    is_train = log.part == TRAIN
    model.fit(inputs[is_train], log.like[is_train])
    yield lambda part: model.predict_proba(inputs[log.part == part])[:, 1]


def factorised(has_layers: bool, log: SplitLog, setting: Setting, seed: int) -> Iterator[Answer]:
    """DeepFM or, without layers, an FM; a round is an epoch."""
    torch.manual_seed(seed)
    fields = [log.user[:, None] + 1, log.item[:, None] + 1]  # 0 is none
    if setting["features"]:
        fields += [padded(log.user_features)[log.user], padded(log.item_features)[log.item]]
    inputs = [torch.from_numpy(field) for field in fields]
    hidden = setting["hidden"] if has_layers else []
    dropout = setting["dropout"] if has_layers else 0.0
    sizes = [int(field.max()) + 1 for field in fields]
    model = DeepFM(sizes, width=setting["width"], hidden=hidden, dropout=dropout)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=setting["lr"], weight_decay=setting["decay"]
    )
    like = torch.from_numpy(log.like)
    train = torch.from_numpy(np.flatnonzero(log.part == TRAIN))
    for _ in range(ROUNDS):
        model.train()
        for rows in train[torch.randperm(len(train))].split(setting["batch"]):
            logit = model([field[rows] for field in inputs])
            loss = nn.functional.binary_cross_entropy_with_logits(logit, like[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield partial(_probability, model, inputs, log)


def _probability(
    model: DeepFM, inputs: list[Tensor], log: SplitLog, part: int
) -> NDArray[np.float64]:
    is_asked = torch.from_numpy(log.part == part)
    with torch.no_grad():
        logit = model.eval()([field[is_asked] for field in inputs])
    return torch.sigmoid(logit).double().numpy()


PEERS = {
    "logistic": Peer(fit=logistic, quality=quality, grid="logistic"),
    "fm": Peer(fit=partial(factorised, False), quality=quality, grid="fm", is_random=True),
    "deepfm": Peer(fit=partial(factorised, True), quality=quality, grid="deepfm", is_random=True),
}

if __name__ == "__main__":
    raise SystemExit(main("clicks", PEERS))
