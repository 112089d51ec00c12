"""MovieLens from its own files of either layout, and what is refused."""

import pandas as pd
import pytest

from flm_torchrec.data.prepare import prepare
from flm_torchrec.data.schema import Schema
from flm_torchrec.data.sources.grouplens import convert_movielens
from flm_torchrec.data.sources.movielens import SCHEMA, fetch_movielens_100k
from flm_torchrec.errors import UserError
from flm_torchrec.typed_yaml import load_yaml

FILES = {
    "user": "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    "1\t24\tM\ttechnician\t85711\n2\t53\tF\tother\t94043\n",
    "item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "1\tToy Story\t1995\tAnimation Children's Comedy\n"
    '2\tMatrix "Reloaded", The\t\tunknown\n'
    "3\tFour Rooms\tV\tThriller\n",
    "inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "1\t1\t5\t3\n1\t2\t3\t2\n1\t3\t4\t1\n2\t3\t1\t7\n",
}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    for kind, content in FILES.items():
        (folder / f"ml-100k.{kind}").write_text(content, encoding="utf-8")
    return folder


def test_a_folder_of_its_files_becomes_a_canonical_folder(source, tmp_path):
    out = tmp_path / "out"
    fetch_movielens_100k(out, source)
    assert {path.name for path in out.iterdir()} == {
        *("users.parquet", "items.parquet", "interactions.parquet", "schema.yaml")
    }
    assert load_yaml(out / "schema.yaml", Schema) == SCHEMA
    items = pd.read_parquet(out / "items.parquet")
    assert items.title.tolist() == ["Toy Story", 'Matrix "Reloaded", The', "Four Rooms"]
    assert items.year.isna().tolist() == [False, True, True]
    assert items.genres[0] == "Animation|Children's|Comedy"
    assert pd.isna(items.genres[1])
    assert len(prepare(out).interactions.user) == 4


def test_the_wheel_holds_100000_ratings_in_their_order(ml100k):
    table = pd.read_parquet(ml100k / "interactions.parquet")
    assert table.iloc[0].tolist() == [196, 242, 3, 881250949]
    assert len(table) == 100_000


@pytest.mark.parametrize(
    ("kind", "old", "new", "message"),
    [
        ("inter", "rating:float", "rating:real", "ml-100k.inter: the header has .rating:real."),
        ("inter", "rating:float", "stars:float", "ml-100k.inter: no column rating; it has"),
        (
            "inter",
            "1\t2\t3\t2",
            "1\t2\tabc\t2",
            "ml-100k.inter: line 3, column .rating.: .abc., where a",
        ),
        (
            "user",
            "2\t53\tF\tother\t94043\n",
            "2\t53\n",
            "ml-100k.user: line 3: 2 values, where 5 are needed",
        ),
    ],
)
def test_a_file_of_another_form_is_refused(source, tmp_path, kind, old, new, message):
    path = source / f"ml-100k.{kind}"
    path.write_text(FILES[kind].replace(old, new))
    with pytest.raises(UserError, match=message):
        fetch_movielens_100k(tmp_path / "out", source)
    assert not (tmp_path / "out").exists()


PLOT = "::G::now::Comedy::D::W::A, B::{}::poster.jpg\n"
PLOTS = (
    "7::Café, The::1999" + PLOT.format('He said: "no".') + "9::Heat::1995" + PLOT.format("A heist.")
)
DAT = {
    "users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
    "movies.dat": "7::Café, Le (1999)::Comedy|Drama\n9::Heat (1995)::Action\n",
    "ratings.dat": "1::7::5::978300760\n1::9::3::978302109\n2::7::3::978301968\n",
}
CSV = {
    "movies.csv": 'movieId,title,genres\n7,"Café, The (1999)",Comedy|Drama\n8,"""Dot""",'
    "(no genres listed)\n9,Heat (1995),Action\n",
    "ratings.csv": "userId,movieId,rating,timestamp\n1,7,2.5,1260759144\n2,9,3,1260759179\n",
    "tags.csv": "userId,movieId,tag,timestamp\n1,9,Dark,1\n2,9,dark,2\n2,9,a|b,3\n",
}


def written(folder, files, encoding="utf-8"):
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content, encoding=encoding)
    return folder


def read(out, name):
    return pd.read_parquet(out / f"{name}.parquet")


def test_dat_files_in_latin_1_become_a_folder(tmp_path):
    out = tmp_path / "out"
    rows = convert_movielens(written(tmp_path / "ml-1m", DAT, "latin-1"), out)
    assert rows == {"users": 2, "items": 2, "interactions": 3}
    assert read(out, "items").to_dict("list") == {
        "item_id": [7, 9],
        "title": ["Café, Le", "Heat"],
        "year": [1999, 1995],
        "genres": ["Comedy|Drama", "Action"],
    }
    assert read(out, "interactions").iloc[1].tolist() == [1, 9, 3, 978302109]
    assert read(out, "users").iloc[0].tolist() == [1, "F", 1, "10", "48067"]
    assert load_yaml(out / "schema.yaml", Schema) == SCHEMA


def test_csv_files_bring_tags_and_no_users(tmp_path):
    out = tmp_path / "out"
    convert_movielens(written(tmp_path / "latest", CSV), out)
    items = read(out, "items")
    assert items.title.tolist() == ["Café, The", '"Dot"', "Heat"]
    assert items.year.isna().tolist() == items.genres.isna().tolist() == [False, True, False]
    assert items.tags.isna().tolist() == [True, True, False]
    assert items.tags[2] == "dark|a/b"
    assert not (out / "users.parquet").exists()
    schema = load_yaml(out / "schema.yaml", Schema)
    assert list(schema.items.features) == ["year", "genres", "tags"]
    assert not schema.users.features


def test_plots_are_found_by_the_films_id(tmp_path):
    plots = tmp_path / "plots.dat"
    plots.write_text(PLOTS, encoding="utf-8")
    out = tmp_path / "out"
    convert_movielens(written(tmp_path / "latest", CSV), out, plots=plots)
    items = read(out, "items")
    assert items["plot"].isna().tolist() == [False, True, False]
    assert items["plot"][0] == 'He said: "no".'
    assert load_yaml(out / "schema.yaml", Schema).items.text["plot"] == "{plot}"


def test_plots_of_100k_are_found_by_title_and_year(source, tmp_path):
    plots = tmp_path / "plots.dat"
    plots.write_text(
        "1::Other::1995"
        + PLOT.format("no")
        + "5::The Toy Story::1995"
        + PLOT.format("Toys.")
        + "6::Four Rooms::1995"
        + PLOT.format("another year"),
        encoding="utf-8",
    )
    item = source / "ml-100k.item"
    item.write_text(item.read_text().replace("Toy Story", "Toy Story, The"))
    convert_movielens(source, tmp_path / "out", plots=plots)
    found = read(tmp_path / "out", "items")["plot"]
    assert found.isna().tolist() == [False, True, True]
    assert found[0] == "Toys."


def test_plots_of_other_films_are_refused(tmp_path):
    plots = tmp_path / "plots.dat"
    plots.write_text("70::Café::1999" + PLOT.format("x"), encoding="utf-8")
    folder = written(tmp_path / "latest", CSV)
    with pytest.raises(UserError, match=r"plots.dat: has none of the films"):
        convert_movielens(folder, tmp_path / "out", plots=plots)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "needs ratings.dat, ratings.csv or one NAME.inter; has none of them"),
        ({"a.inter": "", "b.inter": ""}, "has a.inter, b.inter"),
        ({"ratings.csv": CSV["ratings.csv"]}, "movies.csv: there is no such file"),
        (CSV | {"ratings.csv": "user,movie\n1,7\n"}, "ratings.csv: the header is user,movie, not"),
        (CSV | {"ratings.csv": "userId,movieId,rating,timestamp\n"}, "ratings.csv: has no data ro"),
        (DAT | {"ratings.dat": "1::7::5::1\n1::7::5\n"}, "ratings.dat: line 2: 3 values, where 4"),
        (DAT | {"ratings.dat": "1::x::5::1\n"}, "line 1, column 'item_id': 'x', where a whole"),
    ],
)
def test_files_of_another_layout_are_refused(tmp_path, files, message):
    with pytest.raises(UserError) as caught:
        convert_movielens(written(tmp_path / "in", files), tmp_path / "out")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()
