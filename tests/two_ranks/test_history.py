"""Each history encoder, and factors of the labels: two ranks train as one does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from two_ranks.pool import Ranks
from two_ranks.trained import assembled, losses_of

from flm_torchrec.config import RunConfig
from flm_torchrec.measure import edge_quality
from flm_torchrec.training.runtime import Runtime

HISTORIES = (
    {"kind": "causal", "gaps": True, "layers": 1, "dropout": 0.0},
    {"kind": "mean", "gaps": True, "dropout": 0.0},
    {"kind": "set", "layers": 1, "dropout": 0.0},
)


def config(data: Path, history: dict[str, Any], factors: int) -> RunConfig:
    return RunConfig.model_validate(
        {
            "data": {
                "path": str(data),
                "users": 8,
                "window": 8,
                "shuffle_ties": history["kind"] != "set",
                "ahead": 1 if history["kind"] == "set" else 3,
                "hide_users": 0.3,
            },
            "views": {"width": 16, "view_dropout": 0.0, "history": history},
            "tasks": {"heads": {"hidden": 16, "width": 8, "dropout": 0.0, "factors": factors}},
            "train": {"steps": 20},
        }
    )


def train_from_start(
    runtime: Runtime, config: RunConfig, folder: Path
) -> tuple[list[list[float]], dict[str, float]]:
    assembly = assembled(runtime, config, folder)
    return losses_of(assembly), edge_quality(assembly, part="validation")


@pytest.mark.parametrize("factors", [0, 2])
@pytest.mark.parametrize("history", HISTORIES, ids=lambda history: history["kind"])
def test_two_ranks_train_and_predict_as_one_rank_does(
    history: dict[str, Any],
    factors: int,
    alone: Runtime,
    ranks: Ranks,
    ml100k: Path,
    tmp_path: Path,
) -> None:
    run = config(ml100k, history, factors)
    expected, quality = train_from_start(alone, run, tmp_path)
    (first, first_quality), (second, second_quality) = ranks.run(train_from_start, run, tmp_path)
    mean = (torch.tensor(first) + torch.tensor(second)) / 2
    torch.testing.assert_close(mean, torch.tensor(expected), rtol=1e-3, atol=1e-4)
    assert first_quality == second_quality == pytest.approx(quality, abs=2e-3)
