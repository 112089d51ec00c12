"""Users, items and clicks that the data lack, read by what the data fitted."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from small_data import LOG, SMALL, files_of, write_folder

from flm_torchrec.data.dataset import LATER, Dataset
from flm_torchrec.data.newcomers import Newcomers, with_newcomers
from flm_torchrec.data.prepare import prepare
from flm_torchrec.errors import UserError

USERS = "user_id,age,job\nx1,30,cook\nx2,,\nx3,10,astronaut\n"
ITEMS = "item_id,title,year,genres\nj1,New,2000,b|zz\nj2,,,\n"
HISTORY = "user,item,rating,time\nx1,j1,5,9\nx1,i1,,4\nu3,i6,3,0\n"


def grown(dataset: Dataset, folder: Path, **texts: str) -> Dataset:
    """With newcomers of these tables, each in a file NAME.csv beside the data's folder."""
    files = {}
    for name, text in texts.items():
        files[name] = folder.parent / f"new_{name}.csv"
        files[name].write_text(text)
    return with_newcomers(dataset, Newcomers(**files), folder / "prepared" / dataset.fingerprint)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data")


def test_new_users_have_features_of_the_fitted_rows_and_an_unknown_id(folder: Path) -> None:
    before = prepare(folder)
    after = grown(before, folder, users=USERS)
    assert after.users.ids.tolist() == [None, "u1", "u2", "u3", "u4", "x1", "x2", "x3"]
    columns = {name: column.values[5:].tolist() for name, column in after.users.columns.items()}
    # Jobs of training: cook 1, nurse 2. Its ages are 20 and 30, which share a bucket.
    assert columns == {"user_id": [0, 0, 0], "age": [1, 0, 1], "job": [1, 0, 0]}
    assert after.users.numbers[5:, 0].tolist() == [1, 0, -1]
    for name, column in before.users.columns.items():
        assert after.users.columns[name].values[:5].tolist() == column.values.tolist()
        assert after.users.columns[name].num_embeddings == column.num_embeddings
    assert after.interactions.user_offsets.tolist() == [0, 0, 4, 7, 9, 9, 9, 9, 9]


def test_new_items_have_features_and_texts(folder: Path) -> None:
    before = prepare(folder)
    items = grown(before, folder, items=ITEMS).items
    assert items.ids[7:].tolist() == ["j1", "j2"]
    assert items.columns["item_id"].values[7:].tolist() == [0, 0]
    genres = items.columns["genres"]
    assert genres.offsets[:8].tolist() == before.items.columns["genres"].offsets.tolist()
    assert np.diff(genres.offsets[7:]).tolist() == [2, 0]
    assert genres.values[genres.offsets[7] :].tolist() == [2, 0]  # a 1, b 2
    assert items.text["title"][7:] == ["New (2000). b, zz", ""]
    assert items.text["title"][:7] == before.items.text["title"]
    assert items.titles[8] == "j2"


def test_a_history_stands_in_the_order_of_time_whatever_came_from_where(folder: Path) -> None:
    met = grown(prepare(folder), folder, users=USERS, items=ITEMS, history=HISTORY).interactions
    rows = np.flatnonzero(met.part == LATER)
    assert met.user[rows].tolist() == [3, 5, 5]
    assert met.item[rows].tolist() == [6, 1, 7]
    assert met.time[rows].tolist() == [0, 4, 9]
    assert met.labels["rating"][rows].tolist() == pytest.approx([3, np.nan, 5], nan_ok=True)
    assert met.labels["like"][rows].tolist() == pytest.approx([0, np.nan, 1], nan_ok=True)
    # u3 met i1 and i2 at the times 1 and 2.
    assert met.item[met.events[met.user_offsets[3] : met.user_offsets[4]]].tolist() == [6, 1, 2]
    assert met.before[met.user == 3].tolist() == [0, 1, 2]
    assert met.user_offsets.tolist() == [0, 0, 4, 7, 10, 10, 12, 12, 12]
    assert sorted(met.source_row) == list(range(12))


def test_of_equal_times_what_the_data_hold_comes_first(folder: Path) -> None:
    later = "user,item,rating,time\nu3,i5,5,1\nu3,i6,5,1\n"
    met = grown(prepare(folder), folder, history=later).interactions
    assert met.item[met.user == 3].tolist() == [1, 5, 6, 2]


def test_what_the_data_hold_already_is_passed_over(folder: Path) -> None:
    """The same user, item and second; at another time it is met again, which must be allowed."""
    held, new = "u1,i1,1,1\nu3,i2,5,2\n", "u3,i5,5,1\n"
    before, head = prepare(folder), "user,item,rating,time\n"
    met = grown(before, folder, history=head + held + new).interactions
    alone = grown(before, folder, history=head + new).interactions
    for name in ("user", "item", "time", "part", "events", "user_offsets", "before"):
        assert getattr(met, name).tolist() == getattr(alone, name).tolist(), name
    same = grown(before, folder, history=head + held).interactions
    assert same is before.interactions
    with pytest.raises(UserError, match=r"new_history\.csv: data row 2"):
        grown(before, folder, history=f"{head}u3,i2,5,2\nu3,i1,5,9\n")


def test_nothing_is_written_and_what_was_there_stays(folder: Path) -> None:
    before, files = prepare(folder), files_of(folder)
    after = grown(before, folder, users=USERS, items=ITEMS, history=HISTORY)
    assert files_of(folder) == files
    assert after.fingerprint == before.fingerprint
    is_old = after.interactions.part != LATER
    for name in ("user", "item", "time", "source_row", "part", "positive"):
        kept = getattr(after.interactions, name)[is_old]
        assert kept.tolist() == getattr(before.interactions, name).tolist(), name
    assert after.levels.keys() == before.levels.keys()


def test_ids_of_another_kind_stand_beside_numbers_as_texts(tmp_path: Path) -> None:
    schema = "interactions: {user: user, item: item, time: time}\n"
    log = "user,item,time\n1,10,1\n1,11,2\n2,10,3\n"
    folder = write_folder(tmp_path / "data", files={"schema.yaml": schema, "interactions.csv": log})
    later = "user,item,time\nnew,11,5\n2,11,6\n"
    after = grown(prepare(folder), folder, users="user\nnew\n", history=later)
    assert after.users.ids.tolist() == [None, "1", "2", "new"]
    assert after.items.ids.tolist() == [None, 10, 11]
    is_later = after.interactions.part == LATER
    assert after.interactions.user[is_later].tolist() == [2, 3]
    with pytest.raises(UserError, match="the data hold 2 already"):
        grown(prepare(folder), folder, users="user\nnew\n2\n")


def test_a_log_keeps_its_order_and_the_events_its_schema_names(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", files=LOG)
    # No column of the context is needed but those of predicates.
    later = "user,item,time,click,price\n7,d,35,1,9\n7,a,70,0,\n7,b,80,1,\n"
    before = prepare(folder)
    after = grown(before, folder, history=later).interactions
    assert after.time.tolist() == [*before.interactions.time.tolist(), 35, 70, 80]
    assert after.positive[-3:].tolist() == [True, False, True]
    user = int(after.user[-1])
    events = after.events[after.user_offsets[user] : after.user_offsets[user + 1]]
    assert after.time[events].tolist() == [10, 20, 35, 40, 80]
    assert after.before[-3:].tolist() == [2, 4, 4]
    assert after.before[7] == 3  # of user 7 at 40
    assert after.context["device"].values[-3:].tolist() == [0, 0, 0]
    assert np.diff(after.context["tags"].offsets)[-3:].tolist() == [0, 0, 0]
    assert after.labels["paid"][-3:].tolist() == pytest.approx([1, np.nan, np.nan], nan_ok=True)
    assert not after.numbers[-3:].any()


@pytest.mark.parametrize(("values", "told"), [(("x", "y", "z"), [1, np.nan]), ((3, 5, 7), [5, 9])])
def test_classes_are_those_of_training(
    values: tuple[object, ...], told: list[float], tmp_path: Path
) -> None:
    schema = "interactions: {user: user, item: item, time: time, labels: {sort: multiclass}}\n"
    one, two, three = values
    log = f"user,item,time,sort\n1,1,1,{one}\n1,2,2,{two}\n2,1,3,{one}\n2,2,4,{three}\n"
    folder = write_folder(tmp_path / "data", files={"schema.yaml": schema, "interactions.csv": log})
    later = f"user,item,time,sort\n1,1,8,{two}\n1,2,9,{9 if two == 5 else 'other'}\n"
    met = grown(prepare(folder), folder, history=later).interactions
    assert met.labels["sort"][met.part == LATER].tolist() == pytest.approx(told, nan_ok=True)


def test_vectors_keep_their_width_and_their_scale(tmp_path: Path) -> None:
    schema = """users: {id: user, features: {taste: {kind: vector, separator: ";"}}}
items: {id: item, features: {image: {kind: vector, separator: ";"}}}
interactions: {user: user, item: item, time: time}
"""
    files: Mapping[str, str] = {
        "schema.yaml": schema,
        "users.csv": "user,taste\n1,3;4\n2,\n",
        "items.csv": "item,image\n1,1;2\n2,3;4\n",
        "interactions.csv": "user,item,time\n1,1,1\n1,2,2\n2,1,3\n",
    }
    folder = write_folder(tmp_path / "data", files=files)
    before = prepare(folder)
    after = grown(before, folder, users="user,taste\n3,6;8\n4,\n", items="item,image\n3,\n")
    assert after.items.vectors["image"].tolist() == [[0, 0], [1, 2], [3, 4], [0, 0]]
    known = before.users.numbers_and_vectors()
    wanted = [*known.tolist(), (2 * known[1]).tolist(), [0, 0]]
    assert after.users.numbers_and_vectors().tolist() == wanted
    assert after.users.num_numbers == before.users.num_numbers
    with pytest.raises(UserError, match="data row 1, column 'image': has 1 numbers where others"):
        grown(before, folder, items="item,image\n3,7\n")


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (
            {"users": "user_id,age,job\nx1,1,cook\nu2,1,cook\n"},
            "new_users.csv: data row 2, column 'user_id': the data hold u2 already; "
            "allowed: ids that they lack",
        ),
        (
            {"users": "user_id,age,job\nx1,1,cook\nx1,1,cook\n"},
            "new_users.csv: data row 2, column 'user_id': id x1 is already in data row 1",
        ),
        ({"users": "user_id,age\nx1,1\n"}, "new_users.csv: no column 'job'; it has user_id, age"),
        (
            {"users": ""},
            "new_users.csv: is empty; a table with a header and data rows is needed",
        ),
        ({"items": "item_id,title,year,genres\n"}, "new_items.csv: has no data rows"),
        (
            {"history": "user,item,time\nu1,i5,9\n"},
            "new_history.csv: no column 'rating'; it has user, item, time",
        ),
        (
            {"history": "user,item,rating,time\nu1,i5,1,9\nu1,i99,1,9\n"},
            "new_history.csv: data row 2, column 'item': i99 is no id of the data or of "
            "--new-items, which must list them all",
        ),
        (
            {"history": "user,item,rating,time\nx1,i5,1,9\n"},
            "new_history.csv: data row 1, column 'user': x1 is no id of the data or of "
            "--new-users, which must list them all",
        ),
        (
            {"history": "user,item,rating,time\nu1,i5,1,soon\n"},
            "new_history.csv: data row 1, column 'time': 'soon' is not a number of seconds or a "
            "date such as 2024-05-01T12:30:00",
        ),
        (
            {"history": "user,item,rating,time\nu1,i5,1,8\nu1,i2,1,9\n"},
            "new_history.csv: data row 2, column 'item': this user met this item before, but "
            "schema.yaml says interactions.repeats: false",
        ),
    ],
)
def test_what_can_not_be_read_is_told(texts: Mapping[str, str], told: str, folder: Path) -> None:
    dataset = prepare(folder)
    with pytest.raises(UserError, match=rf"^{re.escape(str(folder.parent))}/{re.escape(told)}$"):
        grown(dataset, folder, **texts)


def test_a_file_that_is_not_there_or_no_table_is_told(folder: Path) -> None:
    dataset = prepare(folder)
    for path, what in ((folder / "no.csv", "is not there"), (folder / "schema.yaml", "is neither")):
        told = f"^{re.escape(str(path))}: {what}; allowed: a .csv or .parquet file$"
        with pytest.raises(UserError, match=told):
            with_newcomers(
                dataset, Newcomers(users=path), folder / "prepared" / dataset.fingerprint
            )


def test_data_that_keep_no_history_take_none(tmp_path: Path) -> None:
    files = dict(SMALL)
    files["schema.yaml"] += "  order: by_log\n  history: none\n"
    folder = write_folder(tmp_path / "data", files=files)
    with pytest.raises(UserError, match="the data's schema keeps no history; allowed: without"):
        grown(prepare(folder), folder, history="user,item,rating,time\nu1,i5,1,8\n")
