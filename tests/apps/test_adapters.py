"""A text encoder with adapters from one stage to the next."""

from pathlib import Path

import pytest
import torch
from checkpoints import whole
from flm_apps import checkpoint as checkpoint_app
from flm_apps import evaluate
from flm_apps import train as train_app
from flm_apps.run_folder import config_file
from small_data import write_folder
from two_ranks.pool import Ranks

from flm_torchrec.assemble import assemble
from flm_torchrec.config import RunConfig
from flm_torchrec.training.runtime import Runtime
from flm_torchrec.typed_yaml import load_yaml


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "small")


def train(run: Path, data: Path, encoder: Path, text: str, *more: str) -> int:
    small = ["data.users=2", "data.window=3", "views.width=8", "train.steps=4"]
    view = f"views.text={{encoder: {encoder}, max_tokens: 8, refresh: 4, {text}}}"
    arguments = [f"data.path={data}", *small, "train.checkpoint_every=4", view, *more]
    return train_app.main(["--config", "tiny.yaml", "--run", str(run), *arguments])


def text_weights(run: Path, folder: Path) -> dict[str, torch.Tensor]:
    entries = whole(run / "checkpoints" / "step-00000004", folder)
    mark = ".text_view.encoder."
    return {n.partition(mark)[2]: value for n, value in entries.items() if mark in n}


def adalora_step(
    runtime: Runtime, data: Path, encoder: Path
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """One step: what went into it, its gradients, and what the encoder and its ranks are then."""
    text = f"{{encoder: {encoder}, max_tokens: 8, refresh: 40, mode: adalora, rank: 2, rows: 2}}"
    given = [f"data.path={data}", "data.users=2", "data.window=3", "views.width=8"]
    given += ["train.steps=2", "train.dense.warmup=0", "train.dense.text_lr=0.01"]
    config = load_yaml(config_file("tiny.yaml"), RunConfig, [*given, f"views.text={text}"])
    assembly = assemble(config, runtime)
    assembly.refresh_text(keep=False)
    view = assembly.model.flm.text_view
    assert view is not None
    before = {name: value.detach().clone() for name, value in view.encoder.named_parameters()}
    pipeline = assembly.pipeline()
    pipeline.progress(assembly.collator.step(assembly.sampler, step) for step in range(2))
    named = view.encoder.named_parameters()
    gradients = {name: value.grad.clone() for name, value in named if value.grad is not None}
    assembly.allocate_ranks(1)
    pipeline.detach()
    return before, gradients, {n: v.clone() for n, v in view.state_dict().items()}


def test_the_regulariser_pulls_within_a_sharded_model_and_ranks_agree(
    data: Path, encoder_folder: Path, ranks: Ranks
) -> None:
    first, second = ranks.run(adalora_step, data, encoder_folder)
    for one, other in zip(first, second, strict=True):
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
    before, gradients, after = first
    assert after["ranks.sensitivity"].sum() > 0
    # Singular values are 0 at first: all that pulls at the vectors is the regulariser.
    right = {name: rows for name, rows in before.items() if ".lora_A." in name}
    assert len(right) == 12
    for name, rows in right.items():
        rest = rows @ rows.T - torch.eye(len(rows))
        pull = 2 * 0.5 / (2 * len(right)) * rest @ rows / rest.norm()
        torch.testing.assert_close(gradients[name], pull)


def test_a_run_with_falling_ranks_ends_with_those_asked_for(
    data: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    adalora = "mode: adalora, rank: 2, rows: 2, micro_batch: 1, precision: bf16"
    fast = "train.dense.text_lr=0.01"
    assert train(first, data, encoder_folder, "mode: full, rows: 2") == 0
    assert train(second, data, encoder_folder, adalora, f"init={first}", fast) == 0
    adapted = text_weights(second, tmp_path)
    singular = [value for name, value in adapted.items() if name.endswith("lora_E.default")]
    assert {value.shape for value in singular} == {(3, 1)}
    assert sum(int((value != 0).sum()) for value in singular) == 2 * len(singular)
    third, out = tmp_path / "third", tmp_path / "copy" / "checkpoints" / "whole"
    assert train(third, data, encoder_folder, adalora, f"init={second}", fast) == 0
    assert checkpoint_app.main(["reshard", str(second), "--out", str(out)]) == 0
    one = whole(second / "checkpoints" / "step-00000004", tmp_path)
    other = whole(out, tmp_path)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert evaluate.main(["--run", str(second), "--part", "validation"]) == 0


def test_adapters_stand_on_the_encoder_that_an_earlier_stage_trained(
    data: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(first, data, encoder_folder, "mode: full, rows: 2") == 0
    lora = "mode: lora, rank: 2, rows: 2"
    assert train(second, data, encoder_folder, lora, f"init={first}") == 0
    trained, adapted = text_weights(first, tmp_path), text_weights(second, tmp_path)
    name = "encoder.layer.0.attention.self.query"
    torch.testing.assert_close(adapted[f"{name}.base_layer.weight"], trained[f"{name}.weight"])
    assert f"{name}.lora_A.default.weight" in adapted
    third = tmp_path / "third"
    assert train(third, data, encoder_folder, lora, f"init={second}") == 0


@pytest.mark.parametrize("mode", ["lora", "adalora"])
def test_adapters_that_a_model_has_no_place_for_are_told(
    mode: str,
    data: Path,
    encoder_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "first"
    assert train(run, data, encoder_folder, f"mode: {mode}, rank: 2, rows: 2") == 0
    for text in ("mode: frozen", f"mode: {mode}, rank: 4, rows: 2"):
        assert train(tmp_path / "next", data, encoder_folder, text, f"init={run}") == 2
        told = capfd.readouterr().err
        assert "holds an adapter of its text encoder, model.flm.text_view.encoder" in told
        assert "allowed: views.text with the mode and rank of that run" in told
