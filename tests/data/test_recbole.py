"""Any data set in RecBole's atomic files."""

import pandas as pd
import pytest

from flm_torchrec.data.schema import Feature, Schema
from flm_torchrec.data.sources.grouplens import convert_movielens
from flm_torchrec.errors import UserError
from flm_torchrec.typed_yaml import load_yaml

FILES = {
    "books.inter": "user_id:token\titem_id:token\ttimestamp:float\trating:float\tpage:float\n"
    "a\t007\t10.5\t10\t3\na\t8\t20\t2\t\nb\t8\t30\t6\t1\n",
    "books.item": "item_id:token\tbook_title:token_seq\tsubjects:token_seq\tprice:float\t"
    "cover:float_seq\n007\tSay Yes\tlove war\t9.5\t0.1 0.2\n8\tNo\t\t\t0.3 0.4\n",
    "books.user": "user_id:token\tcountry:token\na\tfr\nb\tde\n",
}


def written(folder, files=FILES):
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


def test_columns_get_the_kinds_that_their_header_tells(tmp_path):
    out = tmp_path / "out"
    rows = convert_movielens(written(tmp_path / "books"), out)
    assert rows == {"users": 2, "items": 2, "interactions": 3}
    schema = load_yaml(out / "schema.yaml", Schema)
    assert schema.users.features == {"country": Feature(kind="categorical")}
    assert schema.items.features == {
        "subjects": Feature(kind="multi", separator=" "),
        "price": Feature(kind="numeric", buckets=10),
        "cover": Feature(kind="vector", separator=" "),
    }
    assert schema.items.text == {"book_title": "{book_title}"}
    table = pd.read_parquet(out / "interactions.parquet")
    assert table.columns.tolist() == ["user_id", "item_id", "rating", "timestamp", "page"]
    assert table.iloc[0].tolist() == ["a", "007", 10.0, 10.5, 3.0]


def test_what_is_liked_follows_the_highest_rating(tmp_path):
    convert_movielens(written(tmp_path / "books"), tmp_path / "out")
    labels = load_yaml(tmp_path / "out/schema.yaml", Schema).interactions.labels
    assert labels["like"].value == "rating >= 8"
    assert labels["rating"].kind == "ordinal"


def test_interactions_alone_are_enough(tmp_path):
    out = tmp_path / "out"
    convert_movielens(written(tmp_path / "in", {"x.inter": FILES["books.inter"]}), out)
    assert {path.name for path in out.iterdir()} == {"interactions.parquet", "schema.yaml"}
    assert load_yaml(out / "schema.yaml", Schema).items.id == "item_id"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rating:float", "stars:float", "books.inter: no column rating; it has user_id, item_id"),
        ("page:float", "page", "the header has 'page'; a column is NAME:TYPE, where TYPE is one"),
        ("page:float", "a.b:float", "has 'a.b:float'; allowed: names without . { and }"),
        ("20\t2", "20\tgood", "books.inter: line 3, column 'rating': 'good', where a number is"),
        ("10.5\t10\t3\na\t8\t20\t2\t\nb\t8\t30\t6", "1\t\t3\nb\t8\t30\t", "'rating' is empty"),
    ],
)
def test_a_broken_table_is_told(tmp_path, old, new, message):
    assert old in FILES["books.inter"]
    files = FILES | {"books.inter": FILES["books.inter"].replace(old, new)}
    with pytest.raises(UserError) as caught:
        convert_movielens(written(tmp_path / "books", files), tmp_path / "out")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()
