"""What one rank does, two ranks do: same losses, same rows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from two_ranks.pool import Ranks
from two_ranks.toy import EDGES, Tower, bags, make, run
from two_ranks.whole import whole_state

from flm_torchrec.training import checkpoint
from flm_torchrec.training.runtime import Runtime, all_gather
from flm_torchrec.training.sharding import describe_plan

STEPS = 20


def save_start(runtime: Runtime, folder: Path, sharding: str) -> None:
    dmp, optimizer = make(runtime, sharding)
    checkpoint.save(folder, 0, dmp, optimizer, keep=1, meta={})


def train_from_start(
    runtime: Runtime, folder: Path, sharding: str
) -> tuple[list[list[float]], dict[str, Any], list[dict[str, Any]]]:
    """-> losses of each step, the whole state after, the plan."""
    dmp, optimizer = make(runtime, sharding)
    path = checkpoint.latest(folder)
    assert path is not None
    checkpoint.load(path, dmp, optimizer)
    losses = run(runtime, dmp, optimizer, steps=STEPS)
    return losses, whole_state(dmp, optimizer), describe_plan(dmp)


def assert_close(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one.keys() == two.keys()
    for name in one:
        assert flat(one[name]) == pytest.approx(flat(two[name]), rel=1e-4, abs=1e-5), name


def flat(value: Any) -> list[float]:
    return [x for part in value for x in flat(part)] if isinstance(value, list) else [value]


@pytest.mark.parametrize("sharding", ["table_wise", "row_wise", "data_parallel"])
def test_two_ranks_train_as_one_rank_does(
    sharding: str, alone: Runtime, ranks: Ranks, tmp_path: Path
) -> None:
    save_start(alone, tmp_path, sharding)
    losses, state, _ = train_from_start(alone, tmp_path, sharding)
    first, second = ranks.run(train_from_start, tmp_path, sharding)
    assert first[0] == second[0]
    assert flat(first[0]) == pytest.approx(flat(losses), rel=1e-4)
    assert sum(losses[-1]) < sum(losses[0])
    assert first[1] == second[1]
    assert_close(first[1], state)
    assert {entry["sharding_type"] for entry in first[2]} == {sharding}


def three_tables(runtime: Runtime, folder: Path) -> tuple[list[list[float]], list[int]]:
    """-> what one collection of three tables makes of the users' side; the tables' ranks."""
    dmp, optimizer = make(runtime, "table_wise", model=Tower(["user", "age", "item"], dropout=0.0))
    if runtime.world_size == 1:
        checkpoint.save(folder, 0, dmp, optimizer, keep=1, meta={})
    else:
        checkpoint.load(folder / "step-00000000", dmp, optimizer)
    each = EDGES // runtime.world_size
    ours = slice(runtime.rank * each, (runtime.rank + 1) * each)
    features = bags(["user", "age", "item"], torch.Generator().manual_seed(5), ours)
    made = all_gather(dmp(features).detach())
    return made.tolist(), [rank for entry in describe_plan(dmp) for rank in entry["ranks"]]


def test_three_table_wise_tables_read_by_key_are_the_same_on_two_ranks(
    alone: Runtime, ranks: Ranks, tmp_path: Path
) -> None:
    expected, _ = three_tables(alone, tmp_path)
    for made, places in ranks.run(three_tables, tmp_path):
        assert sorted(set(places)) == [0, 1]
        assert flat(made) == pytest.approx(flat(expected), rel=1e-5, abs=1e-6)


def test_table_wise_puts_tables_on_both_ranks(ranks: Ranks) -> None:
    plan, _ = ranks.run(plan_of)
    assert {tuple(entry["ranks"]) for entry in plan} == {(0,), (1,)}
    assert {entry["table"]: (entry["rows"], entry["dim"]) for entry in plan} == {
        "user": (40, 8),
        "age": (8, 8),
        "item": (30, 8),
    }


def plan_of(runtime: Runtime) -> list[dict[str, Any]]:
    dmp, _ = make(runtime, "table_wise")
    return describe_plan(dmp)
