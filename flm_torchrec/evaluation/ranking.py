"""The whole catalogue ranked for every user, on any number of ranks.

Example:
    task = held_out_task(user, item, part, part_to_rank=TEST, num_users=944)
    result = evaluate(score, task, num_items=1683)  # score: user rows (b,) -> (b, num_items)
    print(result.mean["ndcg@10"])
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flm_torchrec.errors import UserError
from flm_torchrec.evaluation.metrics import ranking_metrics

Score = Callable[[NDArray[np.int64]], Tensor]  # user rows (b,) -> scores (b, num_items)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemLists:
    """One list of item rows a row: row r holds values[offsets[r]:offsets[r + 1]]."""

    values: NDArray[np.int64]  # (nnz,)
    offsets: NDArray[np.int64]  # (rows + 1,)

    def take(self, rows: NDArray[np.int64]) -> "ItemLists":
        """The lists of `rows` (n,), in that order."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], lengths.cumsum()])
        within = np.arange(offsets[-1]) - offsets[:-1].repeat(lengths)
        return ItemLists(
            values=self.values[self.offsets[rows].repeat(lengths) + within], offsets=offsets
        )

    def owners(self) -> NDArray[np.int64]:
        """(nnz,) the row that each value belongs to."""
        return np.arange(len(self.offsets) - 1).repeat(np.diff(self.offsets))

    def dense(self, num_items: int) -> Tensor:
        """(rows, num_items) bool: is the item on the row's list."""
        table = torch.zeros(len(self.offsets) - 1, num_items, dtype=torch.bool)
        table[torch.from_numpy(self.owners()), torch.from_numpy(self.values)] = True
        return table


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankingTask:
    """Rank all candidates but the seen ones for each user, and find the targets."""

    users: NDArray[np.int64]  # (n,) user rows, each with at least one target
    seen: ItemLists  # n lists: left out of the ranking
    targets: ItemLists  # n lists: relevant
    candidates: NDArray[np.bool_] | None = None  # (num_items,) what is ranked; None: all items

    def take(self, rows: NDArray[np.int64]) -> "RankingTask":
        """The task of the users at `rows` (m,)."""
        seen, targets = self.seen.take(rows), self.targets.take(rows)
        return replace(self, users=self.users[rows], seen=seen, targets=targets)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankingResult:
    """The same on every rank; users in the order of the task."""

    per_user: dict[str, NDArray[np.float64]]  # each (n,)
    mean: dict[str, float]  # over users, and coverage@k: share of what is ranked recommended
    topk: NDArray[np.int64]  # (n, max(ks)) item rows, best first; 0 where no item is left


def identity(tensor: Tensor) -> Tensor:
    """The gather of a single process."""
    return tensor


def items_of_users(
    user: NDArray[np.int64], item: NDArray[np.int64], *, num_users: int
) -> ItemLists:
    """The items (n,) that each user row met, in their order; num_users lists."""
    return ItemLists(
        values=item[np.argsort(user, kind="stable")],
        offsets=np.append(0, np.bincount(user, minlength=num_users).cumsum()),
    )


def held_out_task(
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    part: NDArray[np.int8],
    *,
    part_to_rank: int,
    num_users: int,
    is_wanted: NDArray[np.bool_] | None = None,
    repeats: bool = False,
) -> RankingTask:
    """Find what each user met in `part_to_rank` and, with `is_wanted`, wanted; rows 0 are unknown.

    What was met in the parts before is seen: not ranked, unless items repeat.
    """
    is_target = (part == part_to_rank) & (user > 0) & (item > 0)
    if is_wanted is not None:
        is_target &= is_wanted
    is_seen = (part < part_to_rank) & (not repeats)
    targets = items_of_users(user[is_target], item[is_target], num_users=num_users)
    users = np.flatnonzero(np.diff(targets.offsets))
    seen = items_of_users(user[is_seen], item[is_seen], num_users=num_users)
    return RankingTask(users=users, seen=seen.take(users), targets=targets.take(users))


def top_items(scores: Tensor, k: int) -> Tensor:
    """scores (b, M) -> (b, k) columns, best first, the lower column first among equals.

    Columns at -inf count as absent: 0 stands in their place, and beyond the M columns.
    """
    width = min(k, scores.shape[1])
    worst = scores.topk(width, dim=1).values[:, -1:]
    # topk picks any of the ties at the border: pick the lowest columns instead.
    is_above, is_tied = scores > worst, scores == worst
    room = width - is_above.sum(1, keepdim=True)
    is_kept = is_above | (is_tied & (is_tied.cumsum(1) <= room))
    columns = is_kept.nonzero()[:, 1].view(-1, width)  # ascending
    best = scores.gather(1, columns).sort(dim=1, descending=True, stable=True)
    columns = columns.gather(1, best.indices).masked_fill(best.values == -torch.inf, 0)
    return torch.nn.functional.pad(columns, (0, k - width))


def _rank_block(score: Score, users: NDArray[np.int64], seen: Tensor, k: int) -> Tensor:
    """users (b,), seen (b, num_items) -> (b, k) item rows."""
    scores = score(users).detach()
    if scores.shape != seen.shape:
        raise ValueError(f"score: gave {tuple(scores.shape)}, expected {tuple(seen.shape)}")
    if bool(scores.isnan().any()):
        row = int(users[int(scores.isnan().any(1).nonzero()[0])])
        raise ValueError(f"score: gave nan for the user of row {row}")
    seen[:, 0] = True  # the unknown item
    return top_items(scores.masked_fill(seen.to(scores.device), -torch.inf), k).cpu()


def _hits(topk: NDArray[np.int64], targets: ItemLists, num_items: int) -> tuple[Tensor, Tensor]:
    """-> hits (n, K) bool, number of distinct targets (n,)."""
    wanted = np.unique(targets.owners() * num_items + targets.values)
    ranked = np.arange(len(topk))[:, None] * num_items + topk
    num_relevant = np.bincount(wanted // num_items, minlength=len(topk))
    return torch.from_numpy(np.isin(ranked, wanted)), torch.from_numpy(num_relevant)


def evaluate(
    score: Score,
    task: RankingTask,
    *,
    num_items: int,
    ks: Sequence[int] = (10, 20),
    block: int = 256,
    rank: int = 0,
    world_size: int = 1,
    gather: Callable[[Tensor], Tensor] = identity,
) -> RankingResult:
    """Rank item rows 1..num_items - 1 for the users of `task`, split over the ranks.

    `score` may run collectives: every rank calls it equally often and with equally many users,
    the last of them row 0 where the split is uneven. `gather` concatenates equal tensors over
    ranks. Equal scores rank the lower item row first.
    """
    n, k = len(task.users), max(ks)
    if n == 0:
        raise UserError("ranking: no user has an item to find in this part of the split")
    share = -(-n // world_size)
    tops = []
    for start in range(rank * share, (rank + 1) * share, block):
        size = min(block, (rank + 1) * share - start)
        own = np.arange(min(start, n), min(start + size, n))
        padding = size - len(own)
        seen = torch.nn.functional.pad(task.seen.take(own).dense(num_items), (0, 0, 0, padding))
        if task.candidates is not None:
            seen |= torch.from_numpy(~task.candidates)
        tops.append(_rank_block(score, np.pad(task.users[own], (0, padding)), seen, k))
    return judge(gather(torch.cat(tops))[:n].numpy(), task, num_items=num_items, ks=ks)


def judge(
    topk: NDArray[np.int64], task: RankingTask, *, num_items: int, ks: Sequence[int] = (10, 20)
) -> RankingResult:
    """The metrics of lists (n, at least max(ks)) that were made for the users of `task`."""
    metrics = ranking_metrics(*_hits(topk, task.targets, num_items), ks)
    mean = {name: float(values.mean()) for name, values in metrics.items()}
    num_ranked = num_items - 1 if task.candidates is None else task.candidates.sum()
    for depth in ks:
        shown = np.unique(topk[:, :depth])
        mean[f"coverage@{depth}"] = float(np.count_nonzero(shown) / num_ranked)
    per_user = {name: values.numpy() for name, values in metrics.items()}
    return RankingResult(per_user=per_user, mean=mean, topk=topk)
