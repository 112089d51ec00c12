"""Users and items that training never saw, recommended to and recommended by a trained run."""

from pathlib import Path

import pandas as pd
import pytest
from flm_apps import recommend
from flm_apps import train as train_app
from small_data import SMALL, files_of, write_folder

# What u4 and i6 are in the data, under ids that it lacks; of x2 nothing is known.
USERS = "user_id,age,job\nx1,70,pilot\nx2,,\n"
ITEMS = "item_id,title,year,genres\nj1,Six,2030,b\nj2,red boat,1990,a\n"


def train(data: Path, run: Path, *more: str) -> Path:
    small = ["data.users=2", "data.window=3", "views.width=8", "train.steps=4"]
    settings = [f"data.path={data}", *small, "train.checkpoint_every=4", *more]
    assert train_app.main(["--config", "tiny.yaml", "--run", str(run), *settings]) == 0
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> Path:
    """A run that reads texts and an image of each item."""
    folder = tmp_path_factory.mktemp("cold")
    pictures = iter(["image", "1;0", "0;1", "", "1;1", "2;0", "0;3"])
    items = [f"{line},{next(pictures)}" for line in SMALL["items.csv"].splitlines()]
    files = SMALL | {"items.csv": "\n".join(items) + "\n"}
    image = 'features: {image: {kind: vector, separator: ";"}, year'
    data = write_folder(folder / "data", {"schema.yaml": ("features: {year", image)}, files=files)
    text = [f"views.text.encoder={encoder_folder}", "views.text.max_tokens=8"]
    return train(data, folder / "run", *text)


def with_images(*images: str) -> str:
    return "".join(f"{a},{b}\n" for a, b in zip(ITEMS.splitlines(), images, strict=True))


def recommended(run: Path, folder: Path, **texts: str) -> pd.DataFrame:
    """All that the command recommends; an option is the text of its file, or "" for none."""
    arguments = ["--run", str(run), "--out", str(folder / "recs.csv")]
    for name, text in ({"k": "6"} | texts).items():
        arguments.append(f"--{name.replace('_', '-')}")
        if "\n" in text:
            file = folder / f"{name}.csv"
            file.write_text(text)
            arguments.append(str(file))
        elif text:
            arguments.append(text)
    assert recommend.main(arguments) == 0
    return pd.read_csv(folder / "recs.csv")


def scores(table: pd.DataFrame, user: str) -> dict[str, float]:
    mine = table[table["user_id"] == user]
    return dict(zip(mine["item_id"], mine["score"], strict=True))


def test_a_new_user_and_a_new_item_are_what_their_features_texts_and_images_say(
    run: Path, tmp_path: Path
) -> None:
    before = files_of(run.parent)
    new = {"new_users": USERS, "new_items": with_images("image", "0;3", "1;1")}
    table = recommended(run, tmp_path, users="all", k="8", include_seen="", **new)
    assert files_of(run.parent) == before
    u4, x1 = scores(table, "u4"), scores(table, "x1")
    assert x1 == pytest.approx(u4, abs=1e-6)  # u4 was in no training either
    assert x1["j1"] == pytest.approx(x1["i6"], abs=1e-6)
    assert x1["j2"] != pytest.approx(x1["i6"], abs=1e-4)
    # Who came before is scored as before.
    alone = recommended(run, tmp_path, include_seen="")
    for user in ("u1", "u2", "u3", "u4"):
        mine = scores(table, user)
        assert {item: mine[item] for item in scores(alone, user)} == pytest.approx(
            scores(alone, user), abs=1e-6
        )


def test_new_users_alone_are_asked_for_and_the_row_says_by_what(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = recommended(run, tmp_path, new_users=USERS, k="3")
    assert table["user_id"].tolist() == ["x1"] * 3 + ["x2"] * 3
    assert table["made_by"].tolist() == ["features"] * 3 + ["popularity"] * 3
    told = "recs.csv: 3 items for each of 2 users, 1 by features, 1 by popularity"
    assert told in capfd.readouterr().out
    clicks = "user,item,rating,time\nx2,i1,5,9\n"
    table = recommended(run, tmp_path, new_users=USERS, history=clicks, k="3")
    assert table["made_by"].tolist() == ["features"] * 3 + ["history"] * 3
    assert "i1" not in set(table.loc[table["user_id"] == "x2", "item_id"])


def test_of_a_history_longer_than_the_window_the_latest_count(run: Path, tmp_path: Path) -> None:
    head, new = "user,item,rating,time\n", {"new_users": USERS, "include_seen": ""}
    latest = "x2,i3,5,7\nx2,i4,1,8\nx2,i5,4,9\n"
    some = recommended(run, tmp_path, history=head + latest, **new)
    more = recommended(run, tmp_path, history=f"{head}x2,i6,1,3\n{latest}x2,i1,1,2\n", **new)
    other = recommended(run, tmp_path, history=f"{head}{latest}x2,i1,1,10\n", **new)
    assert scores(more, "x2") == pytest.approx(scores(some, "x2"), abs=1e-6)
    assert scores(other, "x2") != pytest.approx(scores(some, "x2"), abs=1e-4)


def test_clicks_of_known_users_on_new_items_move_what_they_get(run: Path, tmp_path: Path) -> None:
    new = {"new_items": with_images("image", "0;3", "1;1"), "k": "8"}
    before = recommended(run, tmp_path, **new)
    after = recommended(run, tmp_path, history="user,item,rating,time\nu3,j2,5,9\n", **new)
    assert "j2" in scores(before, "u3")
    assert "j2" not in scores(after, "u3")
    assert scores(after, "u1") == pytest.approx(scores(before, "u1"), abs=1e-6)
    assert scores(after, "u3")["i6"] != pytest.approx(scores(before, "u3")["i6"], abs=1e-4)


def test_candidates_may_be_new_and_a_user_who_has_seen_them_all_gets_none(
    run: Path, tmp_path: Path
) -> None:
    new = {"new_items": with_images("image", "0;3", "1;1"), "users": "user\nu1\nu2\n"}
    table = recommended(run, tmp_path, candidates="item\nj1\ni5\n", **new)
    assert sorted(zip(table["user_id"], table["item_id"], strict=True)) == [
        *[("u1", "i5"), ("u1", "j1"), ("u2", "j1")]
    ]
    table = recommended(run, tmp_path, candidates="item\ni1\ni2\ni5\n", **new)
    assert table[["user_id", "item_id"]].values.tolist() == [["u1", "i5"]]
    empty = recommended(run, tmp_path, candidates="item\ni1\n", **new)
    assert empty.columns.tolist() == ["user_id", "item_id", "rank", "score", "made_by"]
    assert len(empty) == 0


def test_ids_may_come_in_parquet_beside_other_columns(run: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.parquet" for name in ("users", "candidates")}
    pd.DataFrame({"n": [1, 2], "user_id": ["u2", "u1"]}).to_parquet(files["users"])
    pd.DataFrame({"year": [1990, 2020], "item_id": ["i6", "i5"]}).to_parquet(files["candidates"])
    table = recommended(run, tmp_path, **{name: str(file) for name, file in files.items()})
    assert sorted(zip(table["user_id"], table["item_id"], strict=True)) == [
        *[("u1", "i5"), ("u1", "i6"), ("u2", "i6")]
    ]


def test_what_nobody_took_lately_comes_last_in_the_models_order_for_users_unknown(
    run: Path, tmp_path: Path
) -> None:
    """Of nine interactions the latest tenth is one, with i5."""
    new = {"new_items": with_images("image", "0;3", "1;1"), "new_users": USERS, "k": "8"}
    mine = scores(recommended(run, tmp_path, **new), "x2")
    assert mine.pop("i5") > 0.1
    assert all(0 < score < 1e-8 for score in mine.values())
    assert mine["j1"] == pytest.approx(mine["i6"], rel=1e-4)
    assert mine["j2"] != pytest.approx(mine["i6"], rel=1e-4)


def test_a_candidate_that_nobody_knows_is_named(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "items.csv", tmp_path / "recs.csv"
    file.write_text("item\ni1\nj9\n")
    arguments = ["--run", str(run), "--out", str(out), "--k", "3", "--candidates", str(file)]
    assert recommend.main(arguments) == 2
    told = (
        f"flm: error: {file}, data row 2: item 'j9' is not in the data; "
        "allowed: ids of its items table, such as 'i1'"
    )
    assert capfd.readouterr().err.strip().splitlines()[-1] == told
    file.write_text("item\n")
    assert recommend.main(arguments) == 2
    told = f"--candidates {file}: holds no item id below its header; allowed: one a row"
    assert told in capfd.readouterr().err
    assert not out.exists()


def test_a_run_without_text_says_that_it_reads_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = train(write_folder(tmp_path / "data"), tmp_path / "run")
    capfd.readouterr()
    table = recommended(run, tmp_path, new_users=USERS, new_items=ITEMS, k="8")
    told = f"{tmp_path / 'new_items.csv'}: its texts are not read, since the run has no views.text"
    assert told in capfd.readouterr().out
    assert scores(table, "x1")["j1"] == pytest.approx(scores(table, "x1")["i6"], abs=1e-6)


@pytest.mark.parametrize("form", ["views.linear.l2=1", "views.linear.rank=4"])
def test_the_linear_path_scores_new_items_as_those_that_are_alike(
    form: str, tmp_path: Path
) -> None:
    run = train(write_folder(tmp_path / "data"), tmp_path / "run", form)
    clicks = {"users": "all", "history": "user,item,rating,time\nu3,j1,5,9\n", "k": "8"}
    before = recommended(run, tmp_path, include_seen="")
    after = recommended(run, tmp_path, include_seen="", new_users=USERS, new_items=ITEMS, **clicks)
    mine = scores(after, "u1")
    assert {item: mine[item] for item in scores(before, "u1")} == pytest.approx(
        scores(before, "u1"), abs=1e-6
    )
    assert mine["j1"] == pytest.approx(mine["i6"], abs=1e-6)  # which nobody ever met
    assert set(scores(after, "u3")) == {f"i{n}" for n in range(1, 7)} | {"j1", "j2"}


def test_a_run_without_a_window_takes_no_history(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = write_folder(tmp_path / "data", {"schema.yaml": ("repeats: false", "order: by_log")})
    run = train(data, tmp_path / "run", "data.window=0", "data.rows=4")
    clicks = tmp_path / "clicks.csv"
    clicks.write_text("user,item,rating,time\nu1,i5,1,9\n")
    arguments = ["--run", str(run), "--k", "3", "--out", str(tmp_path / "recs.csv")]
    assert recommend.main([*arguments, "--history", str(clicks)]) == 2
    told = f"--history {clicks}: the run reads no history; allowed: without it"
    assert told in capfd.readouterr().err
