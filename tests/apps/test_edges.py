"""Data that say next to nothing of something: they train, evaluate and recommend all the same."""

import json
from math import isfinite
from pathlib import Path

import pandas as pd
import pytest
import yaml
from flm_apps import evaluate, recommend
from flm_apps import train as train_app
from small_data import SMALL, write_folder

NO_TEXT = {
    "schema.yaml": ('text: {title: "{title} ({year}). {genres}"}', 'text: {title: "{note}"}'),
    "items.csv": (
        SMALL["items.csv"],
        "".join(
            f"{line},{'note' if line.startswith('item_id') else ''}\n"
            for line in SMALL["items.csv"].splitlines()
        ),
    ),
}
ONE_EVENT = {
    "interactions.csv": (
        SMALL["interactions.csv"],
        "user,item,rating,time\nu1,i1,5,1\nu2,i2,3,2\nu3,i1,1,3\nu4,i3,4,4\n",
    ),
    "schema.yaml": ("interactions:\n", "split: {kind: random, test: 0.25}\ninteractions:\n"),
}
EQUAL = {
    "interactions.csv": (
        SMALL["interactions.csv"],
        "\n".join(
            line if number == 0 else ",".join([*line.split(",")[:2], "4", line.split(",")[3]])
            for number, line in enumerate(SMALL["interactions.csv"].splitlines())
        ),
    ),
    "schema.yaml": (
        'labels: {like: {kind: binary, value: "rating >= 4"}, rating: {kind: ordinal}}',
        "labels: {rating: {kind: real}}",
    ),
}


@pytest.mark.parametrize(
    ("changes", "factors"), [(NO_TEXT, 0), (ONE_EVENT, 2), (EQUAL, 2)], ids=["text", "one", "equal"]
)
def test_a_run_goes_from_data_to_recommendations(
    changes: dict[str, tuple[str, str]], factors: int, tmp_path: Path, encoder_folder: Path
) -> None:
    data, run = write_folder(tmp_path / "data", changes), tmp_path / "run"
    settings = {
        "data": {"path": str(data), "users": 2, "window": 3},
        "views": {
            "width": 8,
            "fusion": "gated",
            "text": {"encoder": str(encoder_folder), "max_tokens": 8},
            "history": {"layers": 1},
            "linear": {},
        },
        "tasks": {
            "rank": {},
            "align": {"items": 4, "edges": 4},
            "heads": {"hidden": 8, "width": 4, "factors": factors},
        },
        "train": {"steps": 3, "log_every": 1, "checkpoint_every": 3},
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(settings))
    assert train_app.main(["--config", str(file), "--run", str(run)]) == 0
    assert evaluate.main(["--run", str(run)]) == 0
    report = json.loads((run / "report.json").read_text())
    losses = [loss for task in report["tasks"].values() for loss in task.values()]
    assert all(map(isfinite, losses))
    assert all(value is None or isfinite(value) for value in report["test"].values())
    out = tmp_path / "recs.csv"
    arguments = ["--run", str(run), "--k", "5", "--out", str(out), "--include-seen"]
    assert recommend.main(arguments) == 0
    table = pd.read_csv(out)
    assert table.groupby("user_id").size().to_dict() == {f"u{n}": 5 for n in range(1, 5)}
    assert table["score"].map(isfinite).all()
