import json
from pathlib import Path

import pytest
import torch
from two_ranks.toy import WIDE, make, run
from two_ranks.whole import whole_state

from flm_torchrec.errors import UserError
from flm_torchrec.training import checkpoint
from flm_torchrec.training.convert import after_conversion, conversions, regrouped
from flm_torchrec.training.runtime import Runtime

TABLE = "ebc.embedding_bags.item.weight"
STATE = f"optimizer.{TABLE}"
MODEL: dict[str, list[int] | None] = {f"model.{TABLE}": [3, 8]}


@pytest.mark.parametrize(
    ("held", "wanted", "expected"),
    [
        ([4, 4], [8], [[2.0, 3.0]]),
        ([2, 6], [8], [[2.5, 3.5]]),
        ([4, 4], [2, 2, 2, 2], [[1.0, 2.0], [1.0, 2.0], [3.0, 4.0], [3.0, 4.0]]),
        ([4, 4], [2, 6], [[1.0, 2.0], [7 / 3, 10 / 3]]),
        ([4, 4], [4, 4], [[1.0, 2.0], [3.0, 4.0]]),
    ],
)
def test_a_shard_gets_the_mean_of_those_that_its_columns_were_in(
    held: list[int], wanted: list[int], expected: list[list[float]]
) -> None:
    sums = torch.tensor([[1.0, 2.0], [3.0, 4.0]])  # 2 shards of 2 rows
    assert regrouped(sums, held, wanted).tolist() == [pytest.approx(row) for row in expected]


def test_a_row_has_its_sum_in_each_of_several_shards() -> None:
    assert regrouped(torch.tensor([[1.0, 2.0]]), [8], [4, 4]).tolist() == [[1.0, 2.0], [1.0, 2.0]]


@pytest.mark.parametrize(
    ("held", "wanted", "told"),
    [
        (
            {"item.momentum1": [6]},
            {"item.momentum1": [3]},
            "from 2 column shards to 1 (their mean)",
        ),
        (
            {"item.momentum1": [3]},
            {"item.momentum1": [6]},
            "from 1 column shard to 2 (a copy each)",
        ),
        (
            {"item.momentum1": [6]},
            {"item.momentum1": [12]},
            "from 2 column shards to 4 (by their columns)",
        ),
        (
            {"sum": [3, 1], "step": []},
            {"item.momentum1": [3]},
            "from data-parallel to fused (as it is)",
        ),
        (
            {"item.momentum1": [3, 8]},
            {"sum": [3, 8], "step": []},
            "from fused to data-parallel (as it is)",
        ),
        ({"item.momentum1": [6]}, {"sum": [3, 1], "step": []}, "from 2 column shards to 1"),
    ],
)
def test_what_is_converted_is_told_and_gives_what_is_wanted(
    held: dict[str, list[int]], wanted: dict[str, list[int]], told: str
) -> None:
    before = MODEL | {f"{STATE}.{key}": shape for key, shape in held.items()}
    after = MODEL | {f"{STATE}.{key}": shape for key, shape in wanted.items()}
    (one,) = conversions(before, after, held_widths={}, widths={})
    assert one.told().startswith(f"converted: optimizer state of item {told}")
    assert after_conversion(before, [one]) == after


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ({"item.momentum1": [6]}, {"item.momentum1": [6]}),
        ({"item.momentum1": [3]}, {"item.momentum1": [3, 8]}),  # row-wise and element-wise
        ({"exp_avg": [3, 8], "step": []}, {"item.momentum1": [3, 8]}),
        ({}, {"item.momentum1": [3]}),
    ],
)
def test_the_same_form_and_another_optimizer_are_left_alone(
    held: dict[str, list[int]], wanted: dict[str, list[int]]
) -> None:
    before = MODEL | {f"{STATE}.{key}": shape for key, shape in held.items()}
    after = MODEL | {f"{STATE}.{key}": shape for key, shape in wanted.items()}
    assert conversions(before, after, held_widths={}, widths={}) == []


def test_as_many_shards_of_other_widths_are_another_form() -> None:
    shapes = MODEL | {f"{STATE}.item.momentum1": [6]}
    (one,) = conversions(shapes, shapes, held_widths={TABLE: [2, 6]}, widths={TABLE: [4, 4]})
    assert (one.held_widths, one.widths) == ((2, 6), (4, 4))


def saved(alone: Runtime, folder: Path, sharding: str) -> Path:
    dmp, optimizer = make(alone, sharding, dim=WIDE)
    run(alone, dmp, optimizer, steps=3)
    checkpoint.save(folder, 3, dmp, optimizer, keep=1, meta={})
    return folder / "step-00000003"


@pytest.mark.parametrize("is_old", [False, True])
def test_loading_says_what_it_converts(
    is_old: bool, alone: Runtime, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = saved(alone, tmp_path, "column_wise")
    if is_old:  # before a checkpoint knew its files and column shards
        marker = json.loads((path / "meta.json").read_text())
        del marker["files"], marker["column_widths"]
        (path / "meta.json").write_text(json.dumps(marker))
    dmp, optimizer = make(alone, "row_wise", dim=WIDE)
    checkpoint.load(path, dmp, optimizer)
    told = capfd.readouterr().out.splitlines()
    assert sorted(told) == [
        f"converted: optimizer state of {table} from 2 column shards to 1 (their mean)"
        for table in ("age", "item", "user")
    ]
    name = "optimizer.items.ebc.embedding_bags.item.weight.item.momentum1"
    assert len(whole_state(dmp, optimizer)[name]) == 30


def test_another_optimizer_is_refused(alone: Runtime, tmp_path: Path) -> None:
    path = saved(alone, tmp_path, "table_wise")
    dmp, optimizer = make(alone, "table_wise", dim=WIDE, sparse_optimizer="adagrad")
    with pytest.raises(UserError, match=r"momentum1 of shape \[\d+\], the model's is \[\d+, 256\]"):
        checkpoint.load(path, dmp, optimizer)


def test_a_data_parallel_table_counts_the_steps_that_were_taken(
    alone: Runtime, tmp_path: Path
) -> None:
    path = saved(alone, tmp_path, "table_wise")
    dmp, optimizer = make(alone, "data_parallel", dim=WIDE)
    checkpoint.load(path, dmp, optimizer)
    state = whole_state(dmp, optimizer)
    assert state["optimizer.items.ebc.embedding_bags.item.weight.step"] == 3
