"""The table over the text encoder's modes: what is asked again and what is not."""

import json
from pathlib import Path
from typing import Any

import pytest
from flm_benchmarks import text_modes
from flm_benchmarks.peers.units import OUT_OF_TIME
from flm_benchmarks.runs import Runs

from flm_torchrec.config import RunConfig
from flm_torchrec.typed_yaml import load_yaml
from flm_torchrec.views import text_cache

FOUND = {
    "ndcg@10": 0.125,
    "texts_per_s": 40.0,
    "steps_per_s": 2.5,
    "step_seconds_quartiles": [0.1, 0.2],
    "trainable": 1_000,
    "peak_mib": 900.0,
    "seconds": 3.0,
}


@pytest.fixture
def begun(monkeypatch) -> list[str]:
    """The modes of the processes that were started, which do nothing."""
    modes = []
    monkeypatch.setattr(text_modes, "SEEDS", (0,))

    def run(command: list[str], *, check: bool) -> None:
        assert check
        modes.append(command[command.index("--only") + 1])
        Path(command[command.index("--run") + 1]).mkdir(parents=True)
        (seed,) = (int(told[11:]) for told in command if told.startswith("train.seed="))
        own = FOUND | {"ndcg@10": 0.125 + 0.01 * seed, "texts_per_s": 40.0 + 3 * seed**2}
        Path(command[command.index("--unit") + 1]).write_text(json.dumps(own))

    monkeypatch.setattr(text_modes.subprocess, "run", run)
    return modes


def table(folder: Path, monkeypatch, *more: str) -> tuple[int, list[dict[str, Any]]]:
    written: list[dict[str, Any]] = []
    monkeypatch.setattr(
        text_modes, "write_results", lambda _, parts, command: written.extend(parts)
    )
    places = ["--work", str(folder / "work"), "--answers", str(folder / "answers")]
    return text_modes.main([*more, *places]), written


def test_a_mode_that_was_measured_is_not_measured_again(
    begun: list[str], tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = table(tmp_path, monkeypatch, "--only", "frozen", "lora")
    assert code == 0
    code, written = table(tmp_path, monkeypatch)
    assert code == 0
    assert begun == ["frozen", "lora", "last_n", "last_n_anew", "adalora", "adapter", "full"]
    assert [own["mode"] for own in written] == list(text_modes.MODES)
    assert "full" in capsys.readouterr().out
    table(tmp_path, monkeypatch, "--only", "lora", "--steps", "10")
    assert begun[7:] == ["lora"]
    assert not list((tmp_path / "work" / "runs").iterdir())


def test_seeds_are_a_mean_with_its_spread(begun: list[str], tmp_path: Path, monkeypatch) -> None:
    table(tmp_path, monkeypatch, "--only", "lora")
    monkeypatch.setattr(text_modes, "SEEDS", (0, 1, 2))
    _, (own,) = table(tmp_path, monkeypatch, "--only", "lora")
    assert begun == ["lora"] * 3
    assert own["ndcg@10"] == pytest.approx(0.135)
    assert own["spread"] == pytest.approx(0.01)
    assert own["texts_per_s"] == 43.0  # the median
    assert own["seconds"] == 9.0
    assert [run["seed"] for run in own["runs"]] == [0, 1, 2]


def test_nothing_is_begun_after_the_time(begun: list[str], tmp_path: Path, monkeypatch) -> None:
    table(tmp_path, monkeypatch, "--only", "frozen")
    code, written = table(tmp_path, monkeypatch, "--minutes", "-1")
    assert code == OUT_OF_TIME
    assert begun == ["frozen"]
    assert [own["mode"] for own in written] == ["frozen"]


def test_every_mode_is_a_configuration(tmp_path: Path) -> None:
    runs = Runs(config=text_modes.CONFIG, folder=tmp_path)
    for mode in text_modes.MODES:
        told = text_modes.setting(mode, steps=10, rows=4)
        given = runs.overrides(Path("data"), told, 0)
        config = load_yaml(text_modes.CONFIG, RunConfig, given)
        assert config.train.steps == 10
        assert config.views.text is not None
        assert config.views.text.mode == mode.removesuffix("_anew")


def test_a_unit_trains_its_mode_and_tells_its_figures(
    ml100k: Path, encoder_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(text_cache, "MOST_BELOW", text_cache.MOST_BELOW)
    told = text_modes.setting("last_n_anew", steps=2, rows=2)
    told |= {"views.text.encoder": str(encoder_folder), "views.text.max_tokens": 8}
    told |= {"data.window": 8, "views.history.layers": 1}
    given = Runs(config=text_modes.CONFIG, folder=tmp_path).overrides(ml100k, told, 0)
    found = text_modes.unit("last_n_anew", given, tmp_path / "run", timed=2)
    assert found.keys() == FOUND.keys()
    assert found["trainable"] == 2 * 16 * 32 + 32 + 16 + 4 * (16 * 16 + 16) + 4 * 16
    assert found["texts_per_s"] == pytest.approx(2 * found["steps_per_s"])
    assert 0 < found["ndcg@10"] < 1


def test_figures_of_modes_that_are_not_asked_for_stay(
    begun: list[str], tmp_path: Path, monkeypatch
) -> None:
    table(tmp_path, monkeypatch, "--only", "frozen", "lora")
    code, written = table(tmp_path, monkeypatch, "--only", "full")
    assert code == 0
    assert [own["mode"] for own in written] == ["frozen", "lora", "full"]
    _, written = table(tmp_path, monkeypatch, "--only", "full", "--data", "other")
    assert [own["mode"] for own in written] == ["full"]
    assert begun == ["frozen", "lora", "full", "full"]
