"""Users as targets: who is to be followed, alone and beside a domain of videos."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flm_apps import data as data_app
from flm_apps import evaluate, recommend
from flm_apps import train as train_app
from tiny_domains import planted

USERS = 32
SCHEMA = """
users: {id: user_id, features: {country: categorical}}
items: {id: user_id, features: {country: categorical}, text: {title: "{bio}"}}
interactions:
  user: user_id
  item: followed
  time: time
  history: is_self == 0
  positives: is_self == 0
  repeats: false
"""


def follows(folder: Path) -> Path:
    """Users of red and blue things follow 8 of the 15 others of their colour, which their bios
    tell; each has met themself before."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    things = np.array(["car", "boat", "plane", "train"])[rng.integers(0, 4, USERS)]
    colour = np.array(["red", "blue"])[np.arange(USERS) % 2]
    users = pd.DataFrame(
        {
            "user_id": [f"u{n}" for n in range(USERS)],
            "country": [("fi", "de", "jp")[n % 3] for n in range(USERS)],
            "bio": [f"{c} {c} {c} {thing}" for c, thing in zip(colour, things, strict=True)],
        }
    )
    met = []
    for user in range(USERS):
        alike = np.setdiff1d(np.arange(user % 2, USERS, 2), user)
        chosen = [user, *rng.permutation(alike)[:8]]
        met += [(f"u{user}", f"u{other}", step, step == 0) for step, other in enumerate(chosen)]
    columns = ["user_id", "followed", "time", "is_self"]
    users.to_parquet(folder / "users.parquet")
    users.to_parquet(folder / "items.parquet")
    interactions = pd.DataFrame(met, columns=columns).astype({"is_self": int})
    interactions.to_parquet(folder / "interactions.parquet")
    (folder / "schema.yaml").write_text(SCHEMA)
    return folder


def train(run: Path, encoder: Path, *settings: str) -> Path:
    arguments = [
        *("--config", "tiny.yaml", "--run", str(run), f"views.text.encoder={encoder}"),
        *("data.users=8", "data.window=4", "views.width=16", "views.text.max_tokens=8"),
        *("views.history.dropout=0", "train.dense.lr=1e-2", "train.checkpoint_every=100"),
    ]
    assert train_app.main([*arguments, *settings]) == 0
    return run


def recommended(run: Path, *options: str) -> pd.DataFrame:
    out = run / "recs.parquet"
    assert recommend.main(["--run", str(run), "--out", str(out), *options]) == 0
    return pd.read_parquet(out)


def number(ids: pd.Series) -> pd.Series:
    return ids.str.lstrip("u").astype(int)


def is_alike(table: pd.DataFrame) -> pd.Series:
    return number(table["user_id"]) % 2 == number(table["item_id"]) % 2


def report(run: Path) -> dict:
    assert evaluate.main(["--run", str(run)]) == 0
    return json.loads((run / "report.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return follows(tmp_path_factory.mktemp("follow") / "follows")


@pytest.fixture(scope="module")
def run(folder: Path, encoder_folder: Path) -> Path:
    assert data_app.main(["check", str(folder)]) == 0
    task = ("tasks.align={edges: 16, items: 16}", "train.steps=60")
    return train(folder.parent / "run", encoder_folder, f"data.path={folder}", *task)


def test_users_are_recommended_whom_their_like_follow(run: Path) -> None:
    table = recommended(run, "--k", "5")
    assert table["user_id"].nunique() == USERS
    # Of 23 who are left 7 are alike.
    assert is_alike(table).mean() > 0.95
    # Of the 24 who are left in the test 8 are alike, the one held out among them.
    assert report(run)["test"]["recall@10"] > 0.95


def test_nobody_is_recommended_to_themself_who_has_met_themself(run: Path) -> None:
    table = recommended(run, "--k", "23")
    assert len(table) == 23 * USERS
    assert (table["user_id"] != table["item_id"]).all()
    seen = recommended(run, "--k", "8", "--include-seen")
    # Where that does not count, some are.
    assert (seen["user_id"] == seen["item_id"]).any()


def test_follows_are_a_domain_beside_videos_whose_text_view_they_share(
    folder: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    videos = planted(tmp_path, "videos")
    # The tables stay as they were, so that what is learned is text.
    settings = ("train.steps=100", "train.sparse.lr=0", "data.path=null")
    where = (f"data.domains.videos={videos}", f"data.domains.follows={folder}")
    run = train(tmp_path / "run", encoder_folder, *settings, *where)
    table = recommended(run, "--domain", "follows", "--k", "5")
    assert is_alike(table).mean() > 0.9
    assert (table["user_id"] != table["item_id"]).all()
    watched = recommended(run, "--domain", "videos", "--k", "2")
    liked = watched["item_id"].str.removeprefix("videos").astype(int) // 8
    assert (liked == watched["user_id"].astype(int) % 2).mean() > 0.9
    assert set(report(run)["domains"]) == {"videos", "follows"}
