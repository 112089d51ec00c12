"""N steps are N steps cut anywhere and resumed: bit for bit, in both stages, at 1 and 2 ranks."""

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import whole
from flm_apps.run_folder import config_file
from flm_apps.train import run_training
from small_data import write_folder
from two_ranks.pool import Ranks

from flm_torchrec.assemble import assemble
from flm_torchrec.config import RunConfig
from flm_torchrec.training.runtime import Runtime
from flm_torchrec.typed_yaml import load_yaml

STEPS = 7
SETTINGS = (
    *("data.users=2", "data.window=3", "views.width=8", "views.text.max_tokens=8"),
    *("views.history.layers=1", "views.history.heads=2"),
    *(f"train.steps={STEPS}", f"train.keep={STEPS}", "train.checkpoint_every=1"),
    *("train.dense.warmup=2", "train.log_every=1"),
)
STAGE_1 = ("views.text.refresh=1", "views.text.rows=2", "tasks.mlm.texts=2")
Train = Callable[..., Any]


def trained(runtime: Runtime, name: str, settings: Sequence[str], run: Path, resume: bool) -> None:
    """One run, as `flm pretrain` trains it."""
    config = load_yaml(config_file(name), RunConfig, [*SETTINGS, *settings])
    run_training(assemble(config, runtime), run, resume=resume)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(params=[1, 2])
def train(request: pytest.FixtureRequest) -> Train:
    """Calls a function on as many ranks."""
    if request.param == 2:
        ranks: Ranks = request.getfixturevalue("ranks")
        return ranks.run
    alone: Runtime = request.getfixturevalue("alone")
    return lambda function, *arguments: function(alone, *arguments)


def check_cut(run: Path, name: str, settings: Sequence[str], step: int, train: Train) -> None:
    """A copy of a run that is cut at a step and resumed becomes the run."""
    cut = Path(shutil.copytree(run, run.with_name(f"{run.name} cut at {step}")))
    for later in range(step + 1, STEPS + 1):
        shutil.rmtree(cut / "checkpoints" / f"step-{later:08d}")
    train(trained, name, settings, cut, True)
    last = Path("checkpoints") / f"step-{STEPS:08d}"
    one, other = whole(run / last, run.parent), whole(cut / last, run.parent)
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    assert (cut / "log.jsonl").read_text() == (run / "log.jsonl").read_text()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_cut_at_any_step_and_resumed_is_the_one_that_was_not(
    workers: int,
    train: Train,
    data: Path,
    encoder_folder: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    draws = random.Random(request.node.name)  # other steps for each case
    given = [f"data.path={data}", f"data.workers={workers}", f"views.text.encoder={encoder_folder}"]
    first, second = tmp_path / "pretrain", tmp_path / "finetune"
    stages = [
        ("pretrain.yaml", [*given, *STAGE_1], first),
        ("finetune.yaml", [*given, f"init={first}"], second),
    ]
    for name, settings, run in stages:
        train(trained, name, settings, run, False)
        check_cut(run, name, settings, draws.randint(1, STEPS - 1), train)


def test_ranks_that_are_shared_out_go_on_as_they_were(
    train: Train, data: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    given = [f"data.path={data}", f"views.text.encoder={encoder_folder}", *STAGE_1]
    adalora = ["views.text.mode=adalora", "views.text.rank=2", "views.text.micro_batch=1"]
    settings, run = [*given, *adalora, "train.dense.text_lr=0.01"], tmp_path / "adalora"
    train(trained, "pretrain.yaml", settings, run, False)
    entries = whole(run / "checkpoints" / f"step-{STEPS:08d}", tmp_path)
    mark = "model.flm.text_view.ranks."
    averages = {name: value for name, value in entries.items() if mark in name}
    assert len(averages) == 2
    assert all(value.abs().sum() > 0 for value in averages.values())
    for step in (1, 4, 6):  # while ranks fall, and when they no longer do
        check_cut(run, "pretrain.yaml", settings, step, train)
