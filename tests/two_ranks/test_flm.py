"""The whole model on real data: two ranks train as one does, and nothing one rank lacks hangs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from two_ranks.pool import Ranks
from two_ranks.trained import assembled, losses_of

from flm_torchrec.assemble import assemble
from flm_torchrec.config import RunConfig
from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.measure import ranking_quality
from flm_torchrec.training.runtime import Runtime
from flm_torchrec.training.sharding import list_optimizers

STEPS = 20


def config(data: Path, encoder: Path) -> RunConfig:
    return RunConfig.model_validate(
        {
            "data": {"path": str(data), "users": 8, "window": 8},
            "views": {
                "width": 16,
                "view_dropout": 0.0,
                "text": {"encoder": str(encoder), "max_tokens": 8},
                "history": {"layers": 1, "dropout": 0.0},
            },
            "tasks": {
                "rank": {},
                "align": {"items": 32},
                "mlm": {"texts": 4},
                "heads": {"hidden": 16, "width": 8, "dropout": 0.0},
            },
            "train": {"steps": STEPS},
        }
    )


def without_labels(batch: FLMBatch) -> FLMBatch:
    none = torch.zeros_like(batch.edges.label_weight)
    return replace(batch, edges=replace(batch.edges, label_weight=none))


def train_from_start(
    runtime: Runtime, config: RunConfig, folder: Path
) -> tuple[list[list[float]], dict[str, float]]:
    assembly = assembled(runtime, config, folder)
    optimizers = list_optimizers(assembly.dmp, assembly.optimizer)
    names = {name for name, _ in assembly.dmp.named_parameters()}
    assert optimizers.keys() == names
    for name, (kind, lr) in optimizers.items():
        is_frozen = ".encoder." in name
        assert (kind == "frozen") == is_frozen, name
        expected = 0.0 if is_frozen else 0.05 if ".ebc." in name else 2e-3
        assert lr == pytest.approx(expected), (name, kind)
    losses = losses_of(assembly)
    return losses, ranking_quality(assembly, part="validation").mean


def test_two_ranks_train_and_rank_as_one_rank_does(
    alone: Runtime, ranks: Ranks, ml100k: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    run = config(ml100k, encoder_folder)
    expected, quality = train_from_start(alone, run, tmp_path)
    (first, first_quality), (second, second_quality) = ranks.run(train_from_start, run, tmp_path)
    mean = (torch.tensor(first) + torch.tensor(second)) / 2
    torch.testing.assert_close(mean, torch.tensor(expected), rtol=1e-3, atol=1e-4)
    assert mean[-1].sum() < mean[0].sum()
    assert first_quality == second_quality
    assert first_quality == pytest.approx(quality, abs=2e-3)


def train_lacking(runtime: Runtime, config: RunConfig, what: str) -> Any:
    assembly = assemble(config, runtime)
    assembly.refresh_text(keep=False)
    view = assembly.model.flm.text_view
    assert view is not None
    if what == "text" and runtime.rank == 1:
        view.vectors.zero_()
    if what == "labels" and runtime.rank == 1:
        return losses_of(assembly, without_labels)
    return losses_of(assembly)


@pytest.mark.parametrize("what", ["text", "labels"])
def test_what_is_missing_on_one_rank_only_does_not_hang(
    what: str, ranks: Ranks, ml100k: Path, encoder_folder: Path
) -> None:
    first, second = ranks.run(train_lacking, config(ml100k, encoder_folder), what)
    assert torch.tensor(first).isfinite().all()
    assert torch.tensor(second).isfinite().all()
    if what == "labels":
        assert torch.tensor(second)[:, -2:].abs().sum() == 0


def states_kept(runtime: Runtime, config: RunConfig) -> torch.Tensor:
    assembly = assemble(config, runtime)
    assembly.keep_layers_below()
    view = assembly.model.flm.text_view
    assert view is not None
    assert view.below is not None
    return view.below.states


def test_two_ranks_keep_the_states_that_one_rank_does(
    alone: Runtime, ranks: Ranks, ml100k: Path, encoder_folder: Path
) -> None:
    base = config(ml100k, encoder_folder).model_dump()
    base["views"]["text"] |= {"mode": "last_n", "last": 1, "rows": 4}
    run = RunConfig.model_validate(base)
    # Files would be shared: what two ranks gather is looked at first.
    first, second = ranks.run(states_kept, run)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    for file in (ml100k / "prepared").glob("below-*.npy"):
        file.unlink()
    torch.testing.assert_close(states_kept(alone, run), first, rtol=1e-4, atol=1e-5)
