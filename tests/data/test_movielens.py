"""MovieLens-100K from its own files, and what is refused."""

import pandas as pd
import pytest

from flm_torchrec.data.prepare import prepare
from flm_torchrec.data.schema import Schema
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
        ("inter", "rating:float", "stars:float", "ml-100k.inter: no column rating; it has"),
        ("inter", "1\t2\t3\t2", "1\t2\tabc\t2", "ml-100k.inter: not an atomic file"),
        ("user", "2\t53\tF\tother\t94043\n", "2\t53\n", "ml-100k.user: not an atomic file"),
    ],
)
def test_a_file_of_another_form_is_refused(source, tmp_path, kind, old, new, message):
    path = source / f"ml-100k.{kind}"
    path.write_text(FILES[kind].replace(old, new))
    with pytest.raises(UserError, match=message):
        fetch_movielens_100k(tmp_path / "out", source)
    assert not (tmp_path / "out").exists()
