"""What one rank does, two ranks do: same losses, same rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from two_ranks.pool import Ranks
from two_ranks.toy import EDGES, WIDE, Tower, bags, make, run
from two_ranks.whole import whole_state

from flm_torchrec.training import checkpoint
from flm_torchrec.training.runtime import Runtime, all_gather
from flm_torchrec.training.sharding import describe_plan

STEPS = 20


def save_start(runtime: Runtime, folder: Path, **how: Any) -> dict[str, Any]:
    dmp, optimizer = make(runtime, **how)
    checkpoint.save(folder, 0, dmp, optimizer, keep=1, meta={})
    return whole_state(dmp, optimizer)


def train_from_start(
    runtime: Runtime, folder: Path, how: Mapping[str, Any]
) -> tuple[list[list[float]], dict[str, Any], list[dict[str, Any]]]:
    """-> losses of each step, the whole state after, the plan."""
    dmp, optimizer = make(runtime, **how)
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


# Row-wise Adagrad keeps a number for each column shard of a row: it is another optimizer then.
SAME_STEPS = {
    "data_parallel": ["rowwise_adagrad", "adagrad", "sgd"],
    "table_wise": ["rowwise_adagrad", "adagrad", "sgd"],
    "row_wise": ["rowwise_adagrad", "adagrad", "sgd"],
    "table_row_wise": ["rowwise_adagrad"],
    "column_wise": ["adagrad", "sgd"],
    "table_column_wise": ["adagrad", "sgd"],
    "grid_shard": ["adagrad", "sgd"],
}
ON_FOUR = ("table_row_wise", "grid_shard")


@pytest.mark.parametrize(
    ("sharding", "sparse_optimizer"),
    [(sharding, name) for sharding, names in SAME_STEPS.items() for name in names],
)
def test_several_ranks_train_as_one_rank_does(
    sharding: str,
    sparse_optimizer: str,
    alone: Runtime,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    several: Ranks = request.getfixturevalue("four_ranks" if sharding in ON_FOUR else "ranks")
    one = {"default": "table_wise", "sparse_optimizer": sparse_optimizer, "dim": WIDE}
    begin = save_start(alone, tmp_path, **one)
    losses, state, _ = train_from_start(alone, tmp_path, one)
    first, *others = several.run(train_from_start, tmp_path, one | {"default": sharding})
    assert flat(first[0]) == pytest.approx(flat(losses), rel=1e-4)
    assert [name for name in state if ".weight" in name and state[name] == begin[name]] == []
    assert_close(of_fused(first[1], sparse_optimizer), state)
    for other in others:
        assert (other[0], other[1]) == (first[0], first[1])
    assert {entry["sharding_type"] for entry in first[2]} == {sharding}
    split = {len(entry["ranks"]) for entry in first[2]}
    assert (
        split
        == {
            "data_parallel": {2},
            "table_wise": {1},
            "row_wise": {2},
            "table_row_wise": {2},
            "column_wise": {2},
            "table_column_wise": {2},
            "grid_shard": {4},
        }[sharding]
    )


def of_fused(state: dict[str, Any], sparse_optimizer: str) -> dict[str, Any]:
    """State with the sums of data-parallel tables under the names, and in the shape, of fused
    ones."""
    found = {}
    for name, value in state.items():
        parameter, _, key = name.rpartition(".")
        if not name.startswith("optimizer.") or ".embedding_bags." not in parameter:
            found[name] = value
        elif key == "sum":
            table = parameter.removesuffix(".weight").rpartition(".")[2]
            rows = [row[0] for row in value] if "rowwise" in sparse_optimizer else value
            found[f"{parameter}.{table}.momentum1"] = rows
        elif key != "step":
            found[name] = value
    return found


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
