"""Heads of every kind on what is balanced, from a data folder to the report."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from flm_apps import evaluate as evaluate_app
from flm_apps import train as train_app
from small_data import write_folder

ROWS = 60
CLICKS = "user,item,time,click,bought\n" + "".join(
    f"u{n % 5},i{n % 7},{n},{int(n > 50 or n % 3 > 0)},{n % 2}\n" for n in range(ROWS)
)
SCHEMA = """interactions:
  user: user
  item: item
  time: time
  labels: {click: binary, bought: {kind: binary, where: click == 1}}
  order: by_log
"""
TASKS = {
    "rank": {},
    "heads": {
        "bottom": "ple",
        "layers": 2,
        "hidden": 8,
        "width": 4,
        "adapter": 2,
        "biases": ["click"],
        "joint": ["bought"],
    },
    "balance": "gradnorm",
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    files = {"interactions.csv": CLICKS, "schema.yaml": SCHEMA}
    folder = write_folder(tmp_path / "data", files=files)
    settings = {
        "data": {"path": str(folder), "rows": 16, "window": 4},
        "views": {"width": 8, "history": {"layers": 1}},
        "tasks": TASKS,
        "train": {"steps": 4, "log_every": 1, "checkpoint_every": 2},
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def train(config: Path, run: Path, *more: str) -> list[str]:
    """The lines of the run's log."""
    assert train_app.main(["--config", str(config), "--run", str(run), *more]) == 0
    return (run / "log.jsonl").read_text().splitlines()


def test_a_log_tells_what_each_task_counts_and_how_their_gradients_lie(config, tmp_path):
    lines = [json.loads(line) for line in train(config, tmp_path / "run")]
    last = next(line for line in reversed(lines) if "loss" in line)
    weights = [last[f"weight/{name}"] for name in ("rank", "click", "bought")]
    assert sum(weights) == pytest.approx(3.0, rel=1e-4)
    pairs = [name for name in last if name.startswith("grad_cosine/")]
    assert pairs == [
        "grad_cosine/rank/click",
        "grad_cosine/rank/bought",
        "grad_cosine/click/bought",
    ]
    assert all(abs(last[pair]) <= 1.0001 for pair in pairs)


def test_tasks_of_fixed_weights_are_told_of_their_gradients_at_the_end(config, tmp_path):
    lines = map(json.loads, train(config, tmp_path / "run", "tasks.balance=fixed"))
    told = {line["step"]: line for line in lines if any("grad_cosine" in key for key in line)}
    assert list(told) == [4]
    cosines = {key: value for key, value in told[4].items() if key.startswith("grad_cosine/")}
    assert set(cosines) == {
        "grad_cosine/rank/click",
        "grad_cosine/rank/bought",
        "grad_cosine/click/bought",
    }
    assert all(0 < abs(cosine) <= 1.0001 for cosine in cosines.values())


def test_a_resumed_run_is_balanced_as_one_that_never_stopped(config, tmp_path):
    run = tmp_path / "run"
    whole = train(config, run)
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    assert train(config, run, "--resume") == whole


def test_an_auc_of_one_class_is_reported_with_the_reason(config, tmp_path, capfd):
    """The last rows, which are the test, are clicked without exception."""
    train(config, tmp_path / "run")
    assert evaluate_app.main(["--run", str(tmp_path / "run")]) == 0
    reason = "'click' is 1 in all 6 rows that have it"
    assert f"warning: auc_click of the test is undefined: {reason}\n" in capfd.readouterr().out
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["undefined"] == {"test": {"auc_click": reason}}
    assert report["test"]["auc_click"] is None
    assert report["test"]["auc_bought"] is not None
