"""A run from its YAML to recommendations, in this process, on real data with a small encoder."""

import json
import re
import shutil
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import pandas as pd
import pytest
import torch
from checkpoints import whole
from flm_apps import evaluate, recommend
from flm_apps import train as train_app

from flm_torchrec.evaluation.report import read_log

SETTINGS = (
    "data.users=8",
    "data.window=8",
    "views.width=16",
    "views.text.max_tokens=8",
    "views.text.refresh=3",
    "views.history.layers=1",
    *("train.checkpoint_every=3", "train.steps=6"),
    "train.sparse.decay=true",
)


def settings(data: Path, encoder: Path, *more: str) -> list[str]:
    return [*SETTINGS, f"data.path={data}", f"views.text.encoder={encoder}", *more]


def train(config: str, run: Path, *arguments: str) -> int:
    return train_app.main(["--config", config, "--run", str(run), *arguments])


@pytest.fixture(scope="module")
def pretrained(
    tmp_path_factory: pytest.TempPathFactory, ml100k: Path, encoder_folder: Path
) -> Path:
    run = tmp_path_factory.mktemp("runs") / "pretrain"
    assert train("pretrain.yaml", run, *settings(ml100k, encoder_folder)) == 0
    return run


@pytest.fixture(scope="module")
def finetuned(pretrained: Path, ml100k: Path, encoder_folder: Path) -> Path:
    run = pretrained.with_name("finetune")
    arguments = settings(ml100k, encoder_folder, f"init={pretrained}")
    assert train("finetune.yaml", run, *arguments) == 0
    return run


def test_a_run_leaves_its_configuration_log_checkpoints_and_report(pretrained: Path) -> None:
    assert {"config.yaml", "log.jsonl", "tensorboard", "report.json", "report.html"} <= {
        path.name for path in pretrained.iterdir()
    }
    steps = [path.name for path in sorted((pretrained / "checkpoints").glob("step-*"))]
    assert steps == ["step-00000003", "step-00000006"]
    report = json.loads((pretrained / "report.json").read_text())
    assert report["data"] == {"users": 943, "items": 1682, "interactions": 100000}
    assert set(report["tasks"]) == {"rank", "align", "mlm"}
    assert 0 <= report["mlm"]["accuracy"] <= 1
    assert len(report["plan"]) == 7


def test_a_resumed_run_equals_one_that_was_not_cut_bit_for_bit(
    pretrained: Path, ml100k: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(pretrained, cut)
    shutil.rmtree(cut / "checkpoints" / "step-00000006")
    assert train("pretrain.yaml", cut, "--resume", *settings(ml100k, encoder_folder)) == 0
    last = Path("checkpoints") / "step-00000006"
    one, other = whole(pretrained / last, tmp_path), whole(cut / last, tmp_path)
    assert one.keys() == other.keys()
    assert any("exp_avg_sq" in name for name in one)
    assert any("momentum" in name for name in one)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_validation_on_the_way_leaves_training_as_it_was_bit_for_bit(
    pretrained: Path, ml100k: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "watched"
    arguments = settings(ml100k, encoder_folder, "train.validate_every=2")
    assert train("pretrain.yaml", run, *arguments) == 0
    log = read_log(run / "log.jsonl")
    for watched in ("validation/ndcg@10", "view/features/uniformity", "view/title/recall@10"):
        assert [step for step, _ in log[watched]] == [2, 4, 6]
    last = Path("checkpoints") / "step-00000006"
    one, other = whole(pretrained / last, tmp_path), whole(run / last, tmp_path)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_resuming_a_finished_run_has_nothing_left_to_do(
    pretrained: Path, ml100k: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "finished"
    shutil.copytree(pretrained, run)
    before = json.loads((run / "report.json").read_text())["tasks"]
    assert train("pretrain.yaml", run, "--resume", *settings(ml100k, encoder_folder)) == 0
    assert json.loads((run / "report.json").read_text())["tasks"] == before


def test_a_resume_that_can_not_be_leaves_the_run_as_it_was(
    pretrained: Path,
    ml100k: Path,
    encoder_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    shutil.copytree(pretrained, run)
    for override, told in [("train.steps=3", "train.steps: 3"), ("views.width=32", "shape")]:
        arguments = settings(ml100k, encoder_folder, override)
        refused(capfd, train("pretrain.yaml", run, "--resume", *arguments), told)
        assert (run / "config.yaml").read_text() == (pretrained / "config.yaml").read_text()


def test_a_checkpoint_of_other_data_is_refused(
    finetuned: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "other"
    shutil.copytree(finetuned, run)
    for marker in run.glob("checkpoints/*/meta.json"):
        content = json.loads(marker.read_text())
        content["meta"]["fingerprint"] = "another"
        marker.write_text(json.dumps(content))
    refused(capfd, evaluate.main(["--run", str(run)]), "was trained on data another")


def test_stage_two_says_what_came_from_stage_one(
    pretrained: Path,
    ml100k: Path,
    encoder_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    arguments = settings(ml100k, encoder_folder, f"init={pretrained}")
    assert train("finetune.yaml", tmp_path / "again", *arguments) == 0
    told = capfd.readouterr().out
    assert "loaded flm.item_view.ebc.embedding_bags.items_item_id.weight" in told
    assert "fresh  objective.tasks.heads.bottom.0.weight" in told
    # Stage 2 reads what events told, stage 1 does not.
    assert re.findall(r"fresh  (flm\S+)", told) == ["flm.history.event.weight"]


def test_evaluation_adds_metrics_and_baselines_to_the_report(finetuned: Path) -> None:
    assert evaluate.main(["--run", str(finetuned)]) == 0
    report = json.loads((finetuned / "report.json").read_text())
    assert set(report["baselines"]) == {"popularity", "item_knn", "ease", "content_knn", "bias"}
    assert report["baselines"]["ease"]["ndcg@10"] == pytest.approx(0.0711, abs=5e-5)
    assert {
        "hr@10",
        "ndcg@10",
        "recall@20",
        "mrr@10",
        "coverage@10",
        "auc_like",
        "rmse_rating",
    } <= (report["test"].keys())
    assert set(report["tasks"]) == {"rank", "align", "like", "rating"}


def test_evaluation_tells_how_the_items_are_represented(
    finetuned: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main(["--run", str(finetuned)]) == 0
    report = json.loads((finetuned / "report.json").read_text())
    views, page = report["diagnostics"], (finetuned / "report.html").read_text()
    assert set(views) == {"features", "title", "fused"}
    assert {"uniformity", "effective_rank", "recall@10", "fusion_weight"} <= views["title"].keys()
    assert all(isfinite(value) for own in views.values() for value in own.values())
    # The encoder knows none of the titles' words, so that it reads all of them alike.
    (collapse,) = report["collapses"]
    assert collapse.startswith("collapse of view title: uniformity -0.0")
    told = capfd.readouterr().out
    assert f"warning: {collapse}\n" in told
    (line,) = [line for line in told.splitlines() if line.startswith("fused ")]
    assert f"{views['fused']['effective_rank']:.4f}" in line.split()
    for shown in (collapse, "Representation of the items", "Map of the items", "<title>Toy Story"):
        assert shown in page
    assert len(page) < 1_000_000


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_recommendations_are_new_to_their_users_and_in_order(
    ending: str, finetuned: Path, ml100k: Path, tmp_path: Path
) -> None:
    asked = tmp_path / "ids.csv"
    asked.write_text("user_id\n7\n943\n")
    out = tmp_path / f"recs.{ending}"
    arguments = ["--run", str(finetuned), "--users", str(asked), "--k", "4", "--out", str(out)]
    assert recommend.main(arguments) == 0
    table = pd.read_csv(out) if ending == "csv" else pd.read_parquet(out)
    assert table.columns.tolist() == ["user_id", "item_id", "rank", "score", "made_by"]
    assert table["user_id"].tolist() == [7] * 4 + [943] * 4
    assert table["rank"].tolist() == [1, 2, 3, 4] * 2
    met = pd.read_parquet(ml100k / "interactions.parquet")
    for user, recommended in table.groupby("user_id"):
        assert not set(recommended["item_id"]) & set(met.loc[met["user_id"] == user, "item_id"])
        assert recommended["score"].is_monotonic_decreasing


def refused(capfd: pytest.CaptureFixture[str], code: int, *told: str) -> None:
    assert code == 2
    error = capfd.readouterr().err
    assert [part for part in told if part not in error] == []


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.step=3", ["train.step", "steps"]),
        ("train.steps=none", ["train.steps", "none"]),
        ("data.users=5000", ["data.users", "5000", "943"]),
        ("sharding.items_item=row_wise", ["items_item", "items_item_id"]),
        ("train.sparse.optimizer=adam", ["adam", "rowwise_adagrad"]),
        ("views.width=18", ["width", "18"]),
        ("init=nowhere", ["nowhere"]),
    ],
)
def test_a_setting_that_can_not_be_is_refused_with_what_can(
    override: str,
    told: Sequence[str],
    ml100k: Path,
    encoder_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = train("pretrain.yaml", tmp_path / "run", *settings(ml100k, encoder_folder, override))
    refused(capfd, code, *told)
    assert not (tmp_path / "run").exists()


def test_a_configuration_that_is_not_there_names_the_bundled_ones(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refused(capfd, train("mine.yaml", tmp_path), "mine.yaml", "pretrain.yaml", "tiny.yaml")


def test_a_run_is_not_overwritten(
    pretrained: Path, ml100k: Path, encoder_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = train("pretrain.yaml", pretrained, *settings(ml100k, encoder_folder))
    refused(capfd, code, str(pretrained), "--resume")


def test_a_checkpoint_of_another_schema_is_refused(
    finetuned: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "old"
    shutil.copytree(finetuned, run)
    for marker in run.glob("checkpoints/*/meta.json"):
        marker.write_text(json.dumps(json.loads(marker.read_text()) | {"schema": 0}))
    refused(capfd, evaluate.main(["--run", str(run)]), "schema version 0", "allowed: 1")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--k", "0"], ["--k 0", "1682"]),
        (["--users", "no.csv"], ["no.csv", "all"]),
        (["--out", "recs.txt"], ["recs.txt", ".parquet"]),
    ],
)
def test_recommend_refuses_what_it_can_not_do(
    arguments: list[str],
    told: Sequence[str],
    finetuned: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    base = ["--run", str(finetuned), "--out", str(tmp_path / "recs.csv")]
    refused(capfd, recommend.main([*base, *arguments]), *told)
    assert list(tmp_path.iterdir()) == []


def test_a_user_that_the_data_lacks_is_named_with_its_row(
    finetuned: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = tmp_path / "ids.csv"
    asked.write_text("user_id\n7\nbob\n")
    arguments = ["--run", str(finetuned), "--users", str(asked), "--out", str(tmp_path / "r.csv")]
    refused(capfd, recommend.main(arguments), "data row 2", "bob")
