"""Several domains on two ranks train and rank as they do on one."""

from pathlib import Path

import pytest
import torch
from tiny_domains import planted
from two_ranks.pool import Ranks
from two_ranks.trained import assembled, losses_of

from flm_torchrec.config import RunConfig
from flm_torchrec.measure import answers
from flm_torchrec.measure_domains import metrics_by_domain
from flm_torchrec.training.runtime import Runtime

Found = tuple[list[list[float]], dict[str, dict[str, float]]]


def config(folder: Path) -> RunConfig:
    domains = {name: str(folder / name) for name in ("toys", "films")}
    return RunConfig.model_validate(
        {
            "data": {"domains": domains, "temperature": 2.0, "users": 8, "window": 4},
            "views": {"width": 8, "view_dropout": 0.0, "history": {"layers": 1, "dropout": 0.0}},
            "tasks": {"rank": {}},
            "train": {"steps": 8},
        }
    )


def trained(runtime: Runtime, folder: Path) -> Found:
    assembly = assembled(runtime, config(folder), folder / "start")
    losses = losses_of(assembly)
    return losses, metrics_by_domain(assembly.dataset, answers(assembly, part="test"))


def test_two_ranks_train_and_rank_domains_as_one_does(
    alone: Runtime, ranks: Ranks, tmp_path: Path
) -> None:
    planted(tmp_path, "toys", users=12, seed=0)
    planted(tmp_path, "films", users=9, seed=1)
    losses, quality = trained(alone, tmp_path)
    (first, first_quality), (second, second_quality) = ranks.run(trained, tmp_path)
    mean = (torch.tensor(first) + torch.tensor(second)) / 2
    torch.testing.assert_close(mean, torch.tensor(losses), rtol=1e-3, atol=1e-4)
    assert first_quality == second_quality
    for name, own in quality.items():
        assert first_quality[name] == pytest.approx(own, abs=2e-3)
