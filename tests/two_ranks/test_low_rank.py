"""The linear path of two tables: two ranks train and rank as one does, however they are sharded."""

from pathlib import Path

import pytest
import torch
from two_ranks.pool import Ranks
from two_ranks.trained import assembled, losses_of

from flm_torchrec.config import RunConfig
from flm_torchrec.measure import ranking_quality
from flm_torchrec.training.runtime import Runtime
from flm_torchrec.training.sharding import describe_plan


def config(data: Path, sharding: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "data": {"path": str(data), "users": 8, "window": 8},
            "views": {
                "width": 16,
                "view_dropout": 0.0,
                "history": {"layers": 1, "dropout": 0.0},
                "linear": {"rank": 8},
            },
            "tasks": {"rank": {}},
            "train": {"steps": 20, "sparse": {"optimizer": "adagrad"}},
            "sharding": {"linear_history_item_id": sharding, "linear_next_item_id": sharding},
        }
    )


def train_from_start(
    runtime: Runtime, config: RunConfig, folder: Path
) -> tuple[list[list[float]], dict[str, float], dict[str, str]]:
    """-> losses of each step, how well the run ranks, the plan."""
    assembly = assembled(runtime, config, folder)
    plan = {row["table"]: row["sharding_type"] for row in describe_plan(assembly.dmp)}
    losses = losses_of(assembly)
    return losses, ranking_quality(assembly, part="validation").mean, plan


@pytest.mark.parametrize("sharding", ["table_wise", "row_wise", "column_wise", "data_parallel"])
def test_two_ranks_train_and_rank_as_one_rank_does(
    sharding: str, alone: Runtime, ranks: Ranks, ml100k: Path, tmp_path: Path
) -> None:
    run = config(ml100k, sharding)
    expected, quality, _ = train_from_start(alone, run, tmp_path)
    (first, first_quality, plan), (second, second_quality, _) = ranks.run(
        train_from_start, run, tmp_path
    )
    assert {plan["linear_history_item_id"], plan["linear_next_item_id"]} == {sharding}
    mean = (torch.tensor(first) + torch.tensor(second)) / 2
    torch.testing.assert_close(mean, torch.tensor(expected), rtol=1e-3, atol=1e-4)
    assert first_quality == second_quality
    assert first_quality == pytest.approx(quality, abs=2e-3)
