"""`prepare` of users and items: what lacks a row, features of every kind, what grows."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_data import SMALL, write_folder

from flm_torchrec.data.prepare import prepare
from flm_torchrec.errors import UserError

UNKNOWN = {"schema.yaml": ("  repeats: false", "  unknown_ids: unknown")}


def featured(folder: Path, features: str, **columns: list) -> Path:
    """The small data, with items that have other `columns` and `features` only."""
    schema = SMALL["schema.yaml"]
    start = schema.index("items:")
    end = schema.index("interactions:")
    items = f"items:\n  id: item_id\n  features: {{{features}}}\n"
    (write_folder(folder) / "schema.yaml").write_text(schema[:start] + items + schema[end:])
    (folder / "items.csv").unlink()
    ids = [f"i{place}" for place in range(1, 7)]
    pd.DataFrame({"item_id": ids, **columns}).to_parquet(folder / "items.parquet")
    return folder


def test_an_id_that_the_catalogue_lacks_gets_a_row_behind_it(tmp_path):
    folder = write_folder(tmp_path, UNKNOWN)
    for name, old, new in (("users", "u1,20,cook\n", ""), ("items", "i5,Five,2020,a|d\n", "")):
        path = folder / f"{name}.csv"
        path.write_text(path.read_text().replace(old, new))
    data = prepare(folder)
    assert data.users.ids.tolist() == [None, "u2", "u3", "u4", "u1"]
    assert data.items.ids.tolist() == [None, "i1", "i2", "i3", "i4", "i6", "i5"]
    assert data.users.columns["user_id"].values.tolist() == [0, 2, 3, 0, 1]
    assert data.users.columns["job"].values.tolist() == [0, 2, 1, 0, 0]
    assert data.users.numbers[-1].tolist() == [0]
    assert data.items.columns["genres"].offsets.tolist() == [0, 0, 2, 3, 4, 4, 5, 5]
    assert data.items.text["title"][-1] == ""
    assert data.interactions.user.tolist() == [1, 1, 1, 2, 2, 4, 4, 4, 4]


def test_numbers_are_ranks_among_trained_entities(tmp_path):
    values = [10.0, 20.0, None, 15.0, 1e9, -5.0]
    data = prepare(featured(tmp_path, "n: numeric", n=values))
    assert list(data.items.columns) == ["item_id"]
    assert data.items.numbers.dtype == np.float32
    assert data.items.numbers[:, 0].tolist() == [0, -1, 1, 0, 0, 1, -1]


def test_a_hashed_feature_has_rows_from_one_and_two_tables_where_asked(tmp_path):
    folder = featured(
        tmp_path,
        "a: {kind: categorical, hash: 3}, b: {kind: categorical, hash: {rows: 50, ways: 2}}, "
        "c: {kind: multi, hash: 4}",
        a=["x", "y", None, "z", "x", "w"],
        b=[1, 2, 3, 4, 1, None],
        c=[["p", "q"], [], None, ["q"], ["p"], ["r", ""]],
    )
    columns = prepare(folder).items.columns
    assert list(columns) == ["item_id", "a", "b", "b__2", "c"]
    assert [column.num_embeddings for column in columns.values()] == [3, 4, 51, 51, 5]
    a, b, second = (columns[name].values for name in ("a", "b", "b__2"))
    assert (a[0], a[3], b[6], second[6]) == (0, 0, 0, 0)
    assert a[1] == a[5]
    assert a[[1, 2, 4, 6]].min() >= 1
    pairs = list(zip(b[1:5].tolist(), second[1:5].tolist(), strict=True))
    assert len(set(pairs)) == 4
    assert (b[5], second[5]) == pairs[0]
    c = columns["c"]
    assert c.offsets.tolist() == [0, 0, 2, 2, 2, 3, 4, 5]
    assert c.values[0] == c.values[3]
    assert c.values[1] == c.values[2]


def test_hashed_ids_are_zero_where_training_does_not_know_them(tmp_path):
    change = {"schema.yaml": ("id: item_id", "id: item_id\n  hash: {rows: 9, ways: 2}")}
    items = prepare(write_folder(tmp_path, change)).items
    columns = items.columns
    assert list(columns)[: items.num_ids] == ["item_id", "item_id__2"]
    for name in ("item_id", "item_id__2"):
        assert (columns[name].values > 0).tolist() == [False, True, True, *[False] * 4]


def test_vectors_are_lists_of_one_length_and_zeros_where_missing(tmp_path):
    vectors = [[1.0, 2.0], None, [3.0, 4.0], [], [5.0, 6.0], [0.5, 0.25]]
    texts = ["1 2 3", None, "4 5 6", None, None, "7e1 8 9"]
    features = "v: vector, w: {kind: vector, separator: ' '}"
    found = prepare(featured(tmp_path, features, v=vectors, w=texts)).items
    expected = [[0, 0], [1, 2], [0, 0], [3, 4], [0, 0], [5, 6], [0.5, 0.25]]
    assert found.vectors["v"].tolist() == expected
    assert found.vectors["w"][[1, 2, 6]].tolist() == [[1, 2, 3], [0, 0, 0], [70, 8, 9]]
    assert list(found.columns) == ["item_id"]


@pytest.mark.parametrize(
    ("features", "values", "message"),
    [
        ("v: vector", [[1.0, 2.0], None, [3.0], None, None, None], "data row 3, column 'v': has 1"),
        ("v: {kind: vector, separator: ' '}", ["1 2", "1 x", *"1234"], "row 2, column 'v': 'x' is"),
        ("v: vector", [None, [], None, None, None, None], "column 'v' holds no vector in any row"),
        ("v: vector", [1, 2, 3, 4, 5, 6], "column 'v' holds int64; lists of single values are"),
        ("v: categorical", [[1]] * 6, "column 'v' holds list.*, not single values"),
        ("v: numeric", [b"a"] * 6, "data row 1, column 'v': 'a' is not a number"),
        (
            "v: {kind: categorical, hash: {rows: 9, ways: 2}}, v__2: categorical",
            ["a"] * 6,
            "two features are called 'v__2'",
        ),
    ],
)
def test_a_feature_of_other_values_is_told(tmp_path, features, values, message):
    with pytest.raises(UserError, match=message):
        prepare(featured(tmp_path, features, v=values, v__2=values))


def test_features_need_a_table(tmp_path):
    (write_folder(tmp_path) / "users.csv").unlink()
    with pytest.raises(UserError, match=r"has neither of users.parquet and users.csv"):
        prepare(tmp_path)


def later(folder: Path) -> Path:
    """The small data, later: a user, a genre and a year that were not there before."""
    write_folder(folder, {"items.csv": ("i2,Two,2000,b", "i2,Two,2000,aa|b")})
    path = folder / "interactions.csv"
    new = "u0,i3,2,7\nu0,i1,2,8\nu0,i2,3,9\nu0,i4,3,10\n"
    path.write_text(path.read_text() + new)
    path = folder / "users.csv"
    path.write_text(path.read_text() + "u0,90,cook\n")
    return folder


@pytest.mark.parametrize("place", ["data", "prepared"])
def test_what_grows_from_earlier_data_keeps_its_rows(tmp_path, place):
    first = prepare(write_folder(tmp_path / "first"))
    earlier = tmp_path / "first"
    if place == "prepared":
        earlier = earlier / "prepared" / first.fingerprint
    folder = later(tmp_path / "later")
    anew = prepare(folder)
    schema = folder / "schema.yaml"
    schema.write_text(f"{schema.read_text()}grow_from: {os.path.relpath(earlier, folder)}\n")
    grown = prepare(folder)
    assert grown.grown_from == (first.fingerprint,)
    assert grown.users.columns["user_id"].values.tolist() == [0, 1, 2, 3, 0, 4]
    assert grown.items.columns["item_id"].values.tolist() == [0, 1, 2, 3, 0, 0, 0]
    genres = grown.items.columns["genres"]
    # a and b had 1 and 2; aa and c are new.
    assert genres.values[:5].tolist() == [1, 2, 3, 2, 4]
    assert grown.users.numbers[1:5].tolist() == first.users.numbers[1:].tolist()
    assert (
        grown.users.columns["age"].values[1:5].tolist()
        == first.users.columns["age"].values[1:].tolist()
    )
    assert anew.grown_from == ()
    assert anew.fingerprint != grown.fingerprint
    assert anew.users.columns["user_id"].values.tolist() == [0, 2, 3, 4, 0, 1]
    assert prepare(folder).fingerprint == grown.fingerprint


def test_data_that_grow_from_nothing_are_refused(tmp_path):
    folder = write_folder(tmp_path / "one")
    with (folder / "schema.yaml").open("a") as schema:
        schema.write("grow_from: ../none\n")
    with pytest.raises(UserError, match=r"grow_from: \.\./none: there is no folder .*/none"):
        prepare(folder)


def test_data_that_grow_from_themselves_are_refused(tmp_path):
    folder = write_folder(tmp_path / "one")
    schema = folder / "schema.yaml"
    schema.write_text(f"{schema.read_text()}grow_from: ../one\n")
    with pytest.raises(UserError, match=r"grow_from: \.\./one grows from this folder itself"):
        prepare(folder)


def test_vocabularies_are_files_of_the_prepared_folder(tmp_path):
    data = prepare(write_folder(tmp_path))
    folder = tmp_path / "prepared" / data.fingerprint
    genres = pd.read_parquet(folder / "vocabularies/items.genres.vocabulary.parquet")
    assert genres["value"].tolist() == ["a", "b"]
    assert json.loads((folder / "meta.json").read_text())["bad_rows"] == {}
