"""A text encoder with adapters from one stage to the next."""

from pathlib import Path

import pytest
import torch
from checkpoints import whole
from flm_apps import train as train_app
from small_data import write_folder


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


def test_adapters_that_a_model_has_no_place_for_are_told(
    data: Path, encoder_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "lora"
    assert train(run, data, encoder_folder, "mode: lora, rank: 2, rows: 2") == 0
    for text in ("mode: frozen", "mode: lora, rank: 4, rows: 2"):
        assert train(tmp_path / "next", data, encoder_folder, text, f"init={run}") == 2
        told = capfd.readouterr().err
        assert "holds an adapter of its text encoder, model.flm.text_view.encoder" in told
        assert "allowed: views.text with the mode and rank of that run" in told
