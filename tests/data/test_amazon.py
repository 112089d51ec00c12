"""Amazon's reviews of three generations, and their products."""

import gzip
import json

import pandas as pd
import pytest

from flm_torchrec.data.schema import Reviews, Schema
from flm_torchrec.data.sources.amazon import convert_amazon
from flm_torchrec.errors import UserError
from flm_torchrec.typed_yaml import load_yaml

OF_2014 = [
    {
        "reviewerID": "A1",
        "asin": "B1",
        "overall": 5.0,
        "unixReviewTime": 1393545600,
        "summary": "good",
        "reviewText": "Just\nworks.",
        "helpful": [2, 3],
    },
    {
        "reviewerID": "A2",
        "asin": "B2",
        "overall": 3.0,
        "unixReviewTime": 1363392000,
        "summary": "so so",
        "reviewText": "",
        "helpful": [0, 0],
    },
]
OF_2018 = [
    {
        "reviewerID": "A1",
        "asin": "B1",
        "overall": 5.0,
        "unixReviewTime": 1393545600,
        "summary": "ok",
        "reviewText": "Fine.",
        "vote": "1,234",
        "verified": True,
    }
]
OF_2023 = [
    {
        "user_id": "A1",
        "asin": "B9",
        "parent_asin": "B1",
        "rating": 4.0,
        "timestamp": 1588687728923,
        "title": "nice",
        "text": "Näh.",
        "helpful_vote": 7,
    }
]
# As of 2014, written in Python's way, and as of 2018 and 2023.
META = """{'asin': 'B1', 'title': "Ed's pick", 'brand': 'Fender', 'categories': [['Music', 'Pick']]}
{"asin": "B1", "title": "again"}
{"asin": "B7", "title": "never met"}
"""


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def converted(tmp_path, content, meta=None):
    """(interactions, items, schema)"""
    source = tmp_path / "reviews.json"
    source.write_text(content, encoding="utf-8")
    products = None
    if meta is not None:
        products = tmp_path / "meta.json"
        products.write_text(meta, encoding="utf-8")
    out = tmp_path / "out"
    convert_amazon(source, out, meta=products)
    tables = (pd.read_parquet(out / f"{name}.parquet") for name in ("interactions", "items"))
    return *tables, load_yaml(out / "schema.yaml", Schema)


def test_reviews_of_2014_become_interactions_that_tell_of_items(tmp_path):
    table, items, schema = converted(tmp_path, lines(OF_2014))
    row = ["A1", "B1", 5.0, 1393545600, "good", "Just\nworks.", 2]
    assert table.iloc[0].tolist() == row
    assert table.reviewText.isna().tolist() == [False, True]
    assert items.to_dict("list") == {"item_id": ["B1", "B2"]}
    reviews = Reviews(interactions="{summary}. {reviewText}", most=10)
    assert schema.items.text == {"reviews": reviews}
    assert not schema.users.features


@pytest.mark.parametrize(
    ("records", "row"),
    [
        (OF_2018, ["A1", "B1", 5.0, 1393545600, "ok", "Fine.", 1234]),
        (OF_2023, ["A1", "B1", 4.0, 1588687728, "nice", "Näh.", 7]),
    ],
)
def test_later_layouts_give_the_same_columns(tmp_path, records, row):
    table, _, _ = converted(tmp_path, lines(records))
    assert table.iloc[0].tolist() == row


def test_gzipped_reviews_are_read(tmp_path):
    source = tmp_path / "reviews.json.gz"
    source.write_bytes(gzip.compress(lines(OF_2014).encode()))
    assert convert_amazon(source, tmp_path / "out") == {"interactions": 2, "items": 2}


def test_products_bring_titles_and_items_without_one_stay(tmp_path):
    _, items, schema = converted(tmp_path, lines(OF_2014), META)
    assert items.item_id.tolist() == ["B1", "B2"]
    assert items.iloc[0].tolist() == ["B1", "Ed's pick", "Fender", "Music|Pick"]
    assert items.title.isna().tolist() == [False, True]
    assert list(schema.items.text) == ["title", "reviews"]
    assert list(schema.items.features) == ["brand", "categories"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"asin": "B2"', '"asin": ""', "line 2: has none of the keys parent_asin, asin, of which"),
        ('"overall": 3.0', '"overall": "x"', "line 2: 'x' is no number, which overall or rating"),
        ('{"reviewerID": "A2"', '{reviewerID: "A2"', "line 2: is not JSON: "),
        ('{"reviewerID": "A2"', '["A2"]#', "line 2: is not JSON: "),
        ("1363392000", "1e400", "line 2: 'inf' is no number, which unixReviewTime or timestamp"),
        ("1363392000", f"{10**400}", "is no number, which unixReviewTime or timestamp must be"),
        ("1363392000", f"{10**24}", "line 2: '1000000000000000000000000' is no number, which unix"),
        ("3.0", "NaN", "line 2: 'nan' is no number, which overall or rating must be"),
    ],
)
def test_a_broken_line_is_told(tmp_path, old, new, message):
    content = lines(OF_2014)
    assert old in content
    with pytest.raises(UserError, match=r"reviews\.json: ") as caught:
        converted(tmp_path, content.replace(old, new))
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_votes_may_be_written_as_a_fraction(tmp_path):
    content = lines(OF_2014).replace('"helpful": [2, 3]', '"helpful_vote": 2.0')
    converted(tmp_path, content)
    assert pd.read_parquet(tmp_path / "out/interactions.parquet").votes.tolist() == [2, 0]


def test_reviews_without_a_line_are_told(tmp_path):
    with pytest.raises(UserError, match=r"reviews\.json: has no data rows"):
        converted(tmp_path, "\n\n")


@pytest.mark.parametrize("twice", [False, True])
def test_whether_users_review_an_item_again_is_written_into_the_schema(tmp_path, twice):
    records = [*OF_2014, *([OF_2014[0]] if twice else [])]
    file = tmp_path / "reviews.json"
    file.write_text("\n".join(json.dumps(record) for record in records))
    convert_amazon(file, tmp_path / "out")
    schema = load_yaml(tmp_path / "out/schema.yaml", Schema)
    assert schema.interactions.repeats == twice
