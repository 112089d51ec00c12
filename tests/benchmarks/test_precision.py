"""The benchmark of fewer bytes: what it runs, and what it makes of the figures."""

import time
from pathlib import Path
from typing import Any

import pytest
from flm_benchmarks import precision
from flm_benchmarks.ours import CONFIGS
from flm_benchmarks.precision import FIGURE, PARTS, OutOfTimeError, Place, part, unit
from flm_benchmarks.runs import Runs


def place(folder: Path, *, seconds: float = 60) -> Place:
    runs = Runs(config=CONFIGS / "ranking.yaml", folder=folder, ranks=2)
    return Place(runs=runs, data=Path("data/ml-100k"), until=time.monotonic() + seconds)


def test_every_setting_is_one_that_a_run_reads(tmp_path: Path) -> None:
    at = place(tmp_path)
    for sharding, ways in PARTS.items():
        assert next(iter(ways)) == "fp32"
        for setting in ways.values():
            config = at.runs.read(at.data, {"sharding.default": sharding, **setting}, 0)
            assert config.sharding == {"default": sharding}


def test_ranks_and_settings_have_folders_of_their_own(tmp_path: Path) -> None:
    at = place(tmp_path)
    alone = Runs(config=at.runs.config, folder=tmp_path)
    ways = ({}, {"train.sparse.dtype": "fp16"})
    folders = {runs.folder_of(at.data, way, 0) for runs in (alone, at.runs) for way in ways}
    assert len(folders) == 4


def test_gains_are_over_fp32_of_the_same_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(setting: dict[str, str], seed: int) -> float:
        return (0.02 + 0.003 * (seed - 1)) * len(setting)

    def told(at: Place, sharding: str, setting: dict[str, str], seed: int) -> dict[str, Any]:
        return {"seed": seed, FIGURE: 0.1 + 0.01 * seed - lost(setting, seed), "seconds": 2.0}

    monkeypatch.setattr(precision, "unit", told)
    found = part(place(tmp_path), "row_wise", (0, 1, 2))
    gains = {row["name"]: row["gain"] for row in found["ways"]}
    assert gains == {name: pytest.approx(-0.02 * len(PARTS["row_wise"][name])) for name in gains}
    assert found["seconds"] == 2.0 * 3 * len(gains)
    # Of the differences, seed by seed: what the seeds have in common is no error of theirs.
    assert found["ways"][0]["gain_error"] == 0
    assert found["ways"][-1]["gain_error"] == pytest.approx(0.003 / 3**0.5)
    assert "sent bf16              0.0900 (-0.02000 +- 0.00173)" in precision.as_text(found)


def test_what_was_scored_is_read_and_nothing_begins_after_the_time(tmp_path: Path) -> None:
    at = place(tmp_path, seconds=-1)
    with pytest.raises(OutOfTimeError):
        unit(at, "table_wise", {}, 0)
    told = {"sharding.default": "table_wise", "views.linear": None}
    run = at.runs.folder_of(at.data, told, 0)
    run.mkdir()
    (run / "quality.json").write_text('{"seed": 0}')
    assert unit(at, "table_wise", {}, 0) == {"seed": 0}
