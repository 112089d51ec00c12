"""Runs over several domains from YAML to recommendations, and one that starts in a new domain."""

import json
from pathlib import Path

import pandas as pd
import pytest
from flm_apps import embed, evaluate, recommend
from flm_apps import train as train_app
from small_data import write_folder
from tiny_domains import MUSIC, planted

SMALL_RUN = (
    *("data.path=null", "data.users=8", "data.window=4", "views.width=16"),
    *("views.text.max_tokens=8", "views.history.dropout=0", "train.checkpoint_every=120"),
)


def train(run: Path, encoder: Path, *settings: str, **domains: Path) -> Path:
    text = [f"views.text.encoder={encoder}"]
    where = [f"data.domains.{name}={folder}" for name, folder in domains.items()]
    arguments = ["--config", "tiny.yaml", "--run", str(run), *SMALL_RUN, *text, *where, *settings]
    assert train_app.main(arguments) == 0
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("domains")
    for seed, name in enumerate(("toys", "films", "books")):
        planted(folder, name, seed=seed)
    return folder


@pytest.fixture(scope="module")
def run(folder: Path, encoder_folder: Path) -> Path:
    """Trained on toys and films; the tables stay as they were, so that what is learned is text."""
    rates = ("train.dense.lr=1e-2", "train.sparse.lr=0")
    settings = ("train.steps=120", *rates, "data.temperature=2.0", "tasks.heads={}")
    own = {name: folder / name for name in ("toys", "films")}
    return train(folder / "run", encoder_folder, *settings, **own)


def report(run: Path) -> dict:
    assert evaluate.main(["--run", str(run)]) == 0
    return json.loads((run / "report.json").read_text())


def recommended(run: Path, *options: str) -> pd.DataFrame:
    out = run / "recs.csv"
    assert recommend.main(["--run", str(run), "--k", "4", "--out", str(out), *options]) == 0
    return pd.read_csv(out, dtype=str)


def test_the_report_has_the_metrics_of_each_domain(run: Path) -> None:
    found = report(run)
    assert set(found["domains"]) == {"toys", "films"}
    both = [found["domains"][name]["ndcg@10"] for name in ("toys", "films")]
    assert sum(both) / 2 == pytest.approx(found["test"]["ndcg@10"], abs=1e-5)
    assert min(both) > 0.6
    assert found["domains"]["films"]["coverage@10"] == 1.0
    assert "Test quality in each domain" in (run / "report.html").read_text()


def test_the_baselines_rank_a_users_own_domain_too(run: Path) -> None:
    # Of 16 items 5 were met: by chance an item is found at .43.
    assert report(run)["baselines"]["popularity"]["ndcg@10"] > 0.25


def test_users_are_recommended_items_of_their_own_domain(run: Path) -> None:
    for name in ("toys", "films"):
        table = recommended(run, "--domain", name)
        assert table["user_id"].nunique() == 48
        assert table["item_id"].str.startswith(name).all()


def test_candidates_and_users_are_those_of_the_domain(run: Path, tmp_path: Path) -> None:
    users, items = tmp_path / "users.csv", tmp_path / "items.csv"
    users.write_text("user\n0\n1\n")
    items.write_text("id\nfilms1\nfilms9\n")
    options = ("--users", str(users), "--candidates", str(items), "--include-seen")
    table = recommended(run, "--domain", "films", *options)
    assert sorted(table["user_id"] + table["item_id"]) == [
        "0films1",
        "0films9",
        "1films1",
        "1films9",
    ]


def refused(capfd: pytest.CaptureFixture[str], code: int | None) -> str:
    assert code == 2
    return capfd.readouterr().err.strip().splitlines()[-1]


def test_a_domain_must_be_named_where_there_are_several(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--run", str(run), "--out", str(tmp_path / "recs.csv")]
    told = "is missing; the run has several; allowed: toys, films"
    assert f"--domain {told}" in refused(capfd, recommend.main(arguments))
    told = "--domain songs: no such domain; the run has several; allowed: toys, films"
    assert told in refused(capfd, recommend.main([*arguments, "--domain", "songs"]))


def test_newcomers_need_a_run_over_one_folder(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--run", str(run), "--out", str(tmp_path / "recs.csv"), "--history", "new.csv"]
    told = "new.csv: the run's data are those of domains (toys, films); allowed: a run over one"
    assert told in refused(capfd, recommend.main(arguments))


def test_vectors_are_not_written_under_ids_of_two_domains(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = embed.main(["--run", str(run), "--out", str(tmp_path / "vectors")])
    assert "is over the domains toys, films, whose ids may be equal" in refused(capfd, code)


def test_a_domain_that_was_held_out_is_ranked_by_its_texts_alone(
    run: Path, folder: Path, encoder_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    still = ("train.steps=1", "train.dense.lr=0", "train.sparse.lr=0")
    start = (f"init={run}", "tasks.heads={}")
    new = train(folder / "zero", encoder_folder, *still, *start, books=folder / "books")
    told = capfd.readouterr().out
    for name in (
        "flm.text_view.projections.0.weight",
        "flm.fusion.gate.weight",
        "flm.history.event.weight",
        "objective.tasks.heads.heads.met_head.score.weight",
    ):
        assert f"  loaded {name}" in told
    for name in ("items_books_id", "items_books_kind", "users_books_user"):
        assert f".embedding_bags.{name}.weight" in told.split("  fresh  ", 1)[1]
    assert "  fresh  objective.tasks.heads.bottom.0.weight" in told
    untaught = train(folder / "none", encoder_folder, *still, books=folder / "books")
    # A history of what is red is told by the titles: of 11 items that are left 3 are red.
    found, by_chance = (report(each)["test"]["ndcg@10"] for each in (new, untaught))
    assert found > 0.6
    assert by_chance < 0.55


def test_a_new_domain_is_learned_beside_those_it_starts_from(
    run: Path, folder: Path, encoder_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = {name: folder / name for name in ("toys", "books")}
    both = train(folder / "more", encoder_folder, "train.steps=2", f"init={run}", **own)
    told = capfd.readouterr().out
    assert "  loaded flm.item_view.ebc.embedding_bags.items_toys_id.weight" in told
    assert "  fresh  flm.item_view.ebc.embedding_bags.items_books_id.weight" in told
    assert set(report(both)["domains"]) == {"toys", "books"}


def test_a_name_that_meant_other_data_is_refused(
    run: Path, folder: Path, encoder_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [*SMALL_RUN, f"views.text.encoder={encoder_folder}", f"init={run}"]
    where = f"data.domains.toys={folder / 'books'}"
    code = train_app.main(["--config", "tiny.yaml", "--run", str(tmp_path), *arguments, where])
    told = refused(capfd, code)
    assert "of the domain toys, whose folder holds" in told
    assert told.endswith(
        "allowed: the data as it was when prepared, or another name for the domain"
    )


def test_data_without_a_domain_do_not_start_from_one(
    run: Path, folder: Path, encoder_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [*SMALL_RUN, f"views.text.encoder={encoder_folder}", f"init={run}"]
    where = f"data.path={folder / 'toys'}"
    code = train_app.main(["--config", "tiny.yaml", "--run", str(tmp_path), *arguments, where])
    assert "allowed: the data as it was when prepared" in refused(capfd, code)


def test_domains_of_other_labels_numbers_and_features_train_and_evaluate(
    tmp_path: Path, encoder_folder: Path
) -> None:
    own = {
        "movies": write_folder(tmp_path / "m"),
        "music": write_folder(tmp_path / "s", files=MUSIC),
    }
    tasks = ("tasks.heads={cross: dcn, biases: [rating]}", "tasks.cloze={attribute: music_artist}")
    settings = ("data.users=2", "data.negatives=6", "train.steps=4", "views.linear={}")
    run = train(tmp_path / "run", encoder_folder, *settings, *tasks, **own)
    found = report(run)
    assert "rmse_rating" in found["domains"]["music"]
    assert "auc_like" not in found["domains"]["music"]
    assert set(recommended(run, "--domain", "music")["item_id"]) <= {"s1", "s2", "s3", "s4"}
