"""The bundled presets: one recipe over shops, news and videos, and the smallest model."""

import json
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
from flm_apps import evaluate as evaluate_app
from flm_apps import recommend as recommend_app
from flm_apps import train as train_app
from flm_apps.run_folder import config_file
from layouts import BEHAVIORS, NEWS, REVIEWS, converted

from flm_torchrec.config import RunConfig
from flm_torchrec.typed_yaml import load_yaml

PRESETS = ("ecommerce", "news", "video")
FEW_STEPS = (
    *("data.users=2", "data.rows=8", "data.window=4", "views.text.rows=4"),
    *("views.text.max_tokens=8", "views.text.refresh=2"),
    *("train.steps=2", "train.checkpoint_every=2", "train.log_every=1"),
)


def preset(name: str) -> RunConfig:
    return load_yaml(config_file(name), RunConfig)


def without_data_and_text(config: RunConfig) -> dict[str, Any]:
    every = config.model_dump(exclude={"data": True, "views": {"text"}})
    return every | {"reads_text": config.views.text is not None}


def test_the_presets_differ_in_data_and_text_alone() -> None:
    first, *others = (preset(name) for name in PRESETS)
    for other in others:
        assert without_data_and_text(other) == without_data_and_text(first)
        assert other.data != first.data
        assert other.views.text != first.views.text


def test_the_smallest_preset_has_one_view_and_one_task() -> None:
    smallest = preset("tiny")
    assert smallest.views.text is None
    tasks = smallest.tasks.model_dump(exclude={"balance"})
    assert [name for name, task in tasks.items() if task is not None] == ["rank"]


def trained(name: str, data: Path, run: Path, *settings: str) -> dict[str, Any]:
    """The report of a preset that trained, evaluated and recommended."""
    where = ("--config", name, "--run", str(run), f"data.path={data}")
    assert train_app.main([*where, *settings]) == 0
    assert evaluate_app.main(["--run", str(run)]) == 0
    out = run / "recs.csv"
    assert recommend_app.main(["--run", str(run), "--k", "2", "--out", str(out)]) == 0
    report = json.loads((run / "report.json").read_text())
    assert all(isfinite(loss) for task in report["tasks"].values() for loss in task.values())
    return report


@pytest.mark.parametrize(
    ("name", "layout", "files", "labels", "metric"),
    [
        ("ecommerce", "amazon", {"reviews.json": REVIEWS}, {"like", "rating"}, "ndcg@10"),
        ("news", "mind", {"behaviors.tsv": BEHAVIORS, "news.tsv": NEWS}, {"click"}, "auc_click"),
    ],
)
def test_a_preset_trains_on_what_is_converted(
    name: str,
    layout: str,
    files: dict[str, str],
    labels: set[str],
    metric: str,
    encoder_folder: Path,
    tmp_path: Path,
) -> None:
    data = converted(layout, files, tmp_path)
    encoder = f"views.text.encoder={encoder_folder}"
    report = trained(name, data, tmp_path / "run", *FEW_STEPS, encoder)
    assert set(report["tasks"]) == {"rank", "align", "mlm"} | labels
    assert metric in report["test"]


def test_the_video_preset_trains_on_movies(
    ml100k: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    encoder = f"views.text.encoder={encoder_folder}"
    report = trained("video", ml100k, tmp_path / "run", *FEW_STEPS, encoder)
    assert set(report["tasks"]) == {"rank", "align", "mlm", "like", "rating"}
    assert {"ndcg@10", "auc_like", "rmse_rating"} <= set(report["test"])


def test_the_smallest_preset_trains_on_movies(ml100k: Path, tmp_path: Path) -> None:
    report = trained("tiny", ml100k, tmp_path / "run", "train.steps=2", "train.checkpoint_every=2")
    assert set(report["tasks"]) == {"rank"}
