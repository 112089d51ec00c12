"""Each kind of split by hand, and leave-one-out on MovieLens-100K."""

import numpy as np
import pandas as pd
import pytest
from pyarrow import parquet
from small_data import LOG, write_folder

from flm_torchrec.data.dataset import TEST, TRAIN, VALIDATION
from flm_torchrec.data.prepare import prepare
from flm_torchrec.data.preparing.split import by_user_time, drawn, latest
from flm_torchrec.data.preparing.split import leave_one_out as by_order
from flm_torchrec.data.schema import Split
from flm_torchrec.errors import UserError


def leave_one_out(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    return by_order(user, by_user_time(user, time))


def test_the_last_is_test_and_the_last_but_one_validation():
    user = np.array([1, 2, 1, 1, 2, 2, 1])
    time = np.array([9, 1, 5, 7, 3, 2, 1])
    part = leave_one_out(user, time)
    assert part.tolist() == [TEST, TRAIN, TRAIN, VALIDATION, TEST, VALIDATION, TRAIN]


def test_ties_keep_the_order_of_the_file():
    assert leave_one_out(np.zeros(4), np.zeros(4)).tolist() == [TRAIN, TRAIN, VALIDATION, TEST]


def test_a_user_with_fewer_than_three_keeps_all_in_training():
    part = leave_one_out(np.array([1, 2, 2, 3, 3, 3]), np.arange(6))
    assert part.tolist() == [TRAIN, TRAIN, TRAIN, TRAIN, VALIDATION, TEST]


def test_415_users_of_movielens_tie_on_their_last_two_times(ml100k):
    table = parquet.read_table(ml100k / "interactions.parquet")
    user, time = (table[name].to_numpy() for name in ("user_id", "timestamp"))
    part = leave_one_out(user, time)
    last, last_but_one = (
        time[part == name][np.argsort(user[part == name])] for name in (TEST, VALIDATION)
    )
    assert len(last) == 943
    assert (last == last_but_one).sum() == 415


def test_by_time_the_latest_are_held_out_and_ties_stay_together():
    rule = Split(kind="time", validation=0.2, test=0.2)
    time = np.array([5, 1, 9, 2, 7, 3, 7, 4, 8, 6])
    part = latest(time, rule)
    assert time[part == TEST].tolist() == [9, 8]
    assert sorted(time[part == VALIDATION]) == [7, 7]
    part = latest(np.array([1, 2, 3, 4, 5, 6, 6, 7, 7, 7]), rule)
    assert part.tolist() == [TRAIN] * 5 + [VALIDATION] * 2 + [TEST] * 3


def test_by_chance_the_shares_are_exact_and_the_seed_decides():
    rule = Split(kind="random", validation=0.1, test=0.3)
    part = drawn(50, rule)
    assert np.bincount(part).tolist() == [30, 5, 15]
    assert (drawn(50, rule) == part).all()
    assert (drawn(50, rule.model_copy(update={"seed": 1})) != part).any()


@pytest.mark.parametrize(("kind", "key"), [("item_cold", "item"), ("user_cold", "user")])
def test_whole_items_or_users_are_held_out(tmp_path, kind, key):
    split = f"split: {{kind: {kind}, validation: 0.3, test: 0.3}}\n"
    schema = LOG["schema.yaml"].replace("  labels:", "  labels: {}\n#") + split
    found = prepare(write_folder(tmp_path, files={**LOG, "schema.yaml": schema})).interactions
    parts = {(entity, part) for entity, part in zip(getattr(found, key), found.part, strict=True)}
    assert len(parts) == len({entity for entity, _ in parts})
    assert {part for _, part in parts} == {TRAIN, VALIDATION, TEST}
    table = pd.read_parquet(tmp_path / f"splits/{kind}.parquet")
    assert list(table.columns) == ["row", "user_id", "item_id", "timestamp", "part"]


def test_a_split_that_leaves_nothing_to_train_on_is_told(tmp_path):
    rows = ["user,item,time,click,price,device,tags,place,said"]
    rows += [f"{n},a,5,{n % 2},3,phone,x,1;1,yes" for n in range(6)]
    files = {**LOG, "interactions.csv": "\n".join(rows) + "\n"}
    with pytest.raises(UserError, match="split: time of 6 interactions leaves none for train"):
        prepare(write_folder(tmp_path, files=files))


def test_a_split_by_time_that_trains_on_the_future_is_refused(tmp_path):
    folder = write_folder(tmp_path, files=LOG)
    prepare(folder)
    path = folder / "splits/time.parquet"
    split = pd.read_parquet(path)
    split.loc[8, "part"], split.loc[0, "part"] = "train", "test"
    split.to_parquet(path)
    with pytest.raises(UserError, match="but the later interaction in data row"):
        prepare(folder)


def test_a_split_without_ids_and_times_holds_rows_and_parts(tmp_path):
    files = {
        "interactions.csv": "a,click\n" + "".join(f"{n},{n % 2}\n" for n in range(20)),
        "schema.yaml": "split: random\ninteractions: {context: {a: numeric}, "
        "labels: {click: binary}, history: none, order: by_log}\n",
    }
    first = prepare(write_folder(tmp_path, files=files))
    table = pd.read_parquet(tmp_path / "splits/random.parquet")
    assert list(table.columns) == ["row", "part"]
    assert prepare(tmp_path).fingerprint == first.fingerprint


def changed_split(folder, old: str, new: str):
    path = folder / "schema.yaml"
    path.write_text(path.read_text().replace(old, new))
    return folder


def test_a_rule_that_changes_beside_a_split_that_is_there_is_told(tmp_path):
    folder = write_folder(tmp_path)
    schema = folder / "schema.yaml"
    schema.write_text(schema.read_text() + "split: {kind: random, validation: 0.2, test: 0.2}\n")
    prepare(folder)
    changed_split(folder, "test: 0.2", "test: 0.3")
    with pytest.raises(UserError, match=r'random\.parquet: is split by .*"test":0\.2.*"test":0\.3'):
        prepare(folder)
    (folder / "splits" / "random.parquet").unlink()
    prepare(folder)


def test_a_split_in_row_groups_of_any_size_counts(tmp_path):
    first = prepare(write_folder(tmp_path / "first"))
    folder = write_folder(tmp_path / "second")
    table = pd.read_parquet(tmp_path / "first/splits/leave_one_out.parquet")
    (folder / "splits").mkdir()
    table.to_parquet(folder / "splits" / "leave_one_out.parquet", row_group_size=4)
    again = prepare(folder)
    assert again.interactions.part.tolist() == first.interactions.part.tolist()
