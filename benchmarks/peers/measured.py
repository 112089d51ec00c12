"""What the peers answered to the test, under our metrics.

`python -m flm_benchmarks.peers.measured ranking --split SPLIT.npz --out FOLDER` prints a table of
what `python -m flm_benchmarks.peers.ranking` left in FOLDER, in the peers' environment.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from flm_benchmarks.peers.split_log import (
    TEST,
    Search,
    Searching,
    SplitLog,
    cold_items,
    cold_users,
    earlier,
    next_items,
)
from numpy.typing import NDArray

from flm_torchrec.errors import UserError, app
from flm_torchrec.evaluation.metrics import auc, log_loss, mae, rmse
from flm_torchrec.evaluation.ranking import RankingTask, items_of_users, judge

KS = (10, 20)
FAMILIES = ("ranking", "cold_items", "cold_users", "clicks", "ratings")
EARLIER = "ranking_earlier"  # what the family `ranking` answers by strictly earlier history


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """A peer on the test, averaged over its seeds."""

    peer: str
    setting: dict[str, Any]  # as chosen on validation
    validation: float  # of the first seed, by the peers' own measure
    by_seed: list[dict[str, float]]
    mean: dict[str, float]
    users: NDArray[np.int64]  # (n,) rows
    per_user: dict[str, NDArray[np.float64]]  # each (n,)


def search_of(family: str, peer: str) -> Searching:
    """What a peer was asked for."""
    if family == "cold_users":
        return cold_users(int(peer.rpartition(".")[2]))
    searches = {"ranking": next_items, EARLIER: earlier, "cold_items": cold_items}
    return searches[family]


def ranking_task(log: SplitLog, search: Search) -> RankingTask:
    """Find what is wanted; what is known, and what is no candidate, is left out of the ranking."""
    lists = [
        items_of_users(log.user[rows], log.item[rows], num_users=log.num_users)
        for rows in (search.known, search.wanted)
    ]
    users = np.flatnonzero(np.diff(lists[1].offsets))
    return RankingTask(users=users, seen=lists[0].take(users), targets=lists[1].take(users))


def _check_lists(peer: str, top: NDArray[np.int64], log: SplitLog, search: Search) -> None:
    """Refuse lists with what a user knows, with items twice or with no candidates."""
    if top.shape != (log.num_users, max(KS)):
        raise UserError(
            f"{peer}: gave lists {top.shape}; expected {(log.num_users, max(KS))}, a user a row"
        )
    known = log.matrix(search.known).toarray() > 0
    is_item = top > 0  # lists may end early
    ordered = np.sort(top, axis=1)
    is_refused = np.take_along_axis(known, top, 1) | ~search.candidates[top]
    is_twice = ordered[:, 1:] == ordered[:, :-1]
    is_bad = (is_refused & is_item).any(1) | (is_twice & (ordered[:, 1:] > 0)).any(1)
    if is_bad.any():
        raise UserError(
            f"{peer}: gave user row {int(np.flatnonzero(is_bad)[0])} an item that they know, that "
            "is no candidate, or twice"
        )


def lists_measured(
    family: str, peer: str, log: SplitLog, top: NDArray[np.int64]
) -> tuple[dict[str, float], NDArray[np.int64], dict[str, NDArray[np.float64]]]:
    """-> means, users (n,), and each metric of each user (n,)."""
    search = search_of(family, peer)(log, TEST)
    _check_lists(peer, top, log, search)
    task = ranking_task(log, search)
    result = judge(top[task.users], task, num_items=log.num_items, ks=KS)
    return result.mean, task.users, result.per_user


def predictions_measured(
    family: str, log: SplitLog, answer: NDArray[np.float64]
) -> tuple[dict[str, float], NDArray[np.int64], dict[str, NDArray[np.float64]]]:
    """-> figures, users (n,), and what each user adds to the loss (n,): the ratio of its means is
    that of the mean squared errors, or of the log losses."""
    is_test = log.part == TEST
    predicted = torch.from_numpy(answer)
    if family == "clicks":
        label = torch.from_numpy(log.like[is_test])
        figures = {"auc": auc(predicted, label), "log_loss": log_loss(predicted, label)}
        loss = -np.log(np.where(log.like[is_test] > 0, answer, 1 - answer))
        name = "log_loss"
    else:
        value = torch.from_numpy(log.rating[is_test])
        figures = {"rmse": rmse(predicted, value), "mae": mae(predicted, value)}
        loss, name = np.square(answer - log.rating[is_test]), "squared_error"
    users, place = np.unique(log.user[is_test], return_inverse=True)
    return figures, users, {name: np.bincount(place, loss).astype(np.float64)}


def measured(family: str, log: SplitLog, out: Path) -> list[Measured]:
    """All peers of a family that are done, in the order of their names."""
    found = []
    for file in sorted(out.glob("*.json")):
        told = json.loads(file.read_text(encoding="utf-8"))
        peer, figures, per_user, users = told["peer"], [], [], np.zeros(0, np.int64)
        for final in told["finals"]:
            with np.load(out / f"{peer}.{final['seed']}.npz") as arrays:
                answer = arrays["earlier" if family == EARLIER else "answer"]
            if family in ("clicks", "ratings"):
                mean, users, own = predictions_measured(family, log, answer)
            else:
                mean, users, own = lists_measured(family, peer, log, answer)
            figures.append(mean)
            per_user.append(own)
        found.append(
            Measured(
                peer=peer,
                setting=told["chosen"],
                validation=told["finals"][0]["validation"],
                by_seed=figures,
                mean={name: fmean(one[name] for one in figures) for name in figures[0]},
                users=users,
                per_user={k: np.mean([one[k] for one in per_user], axis=0) for k in per_user[0]},
            )
        )
    if not found:
        raise UserError(f"{out}: no peer of {family} has answered yet")
    return found


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures of a family."""
    parser = argparse.ArgumentParser(prog="python -m flm_benchmarks.peers.measured")
    parser.add_argument("family", choices=[*FAMILIES, EARLIER])
    parser.add_argument("--split", type=Path, required=True, help="the npz of the split")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the answers")
    args = parser.parse_args(argv)
    for row in measured(args.family, SplitLog.read(args.split), args.out):
        figures = "  ".join(f"{name} {value:.4f}" for name, value in row.mean.items())
        print(f"{row.peer:<22} validation {row.validation:.4f}  {figures}  {row.setting}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
