"""`prepare`: what each row means, what is fitted on training alone, what is written and reused."""

import numpy as np
import pandas as pd
import pytest
from small_data import files_of, write_folder

from flm_torchrec.data.dataset import TEST, TRAIN, VALIDATION, Column, Dataset
from flm_torchrec.data.prepare import prepare


def lists(column: Column) -> list[list[int]]:
    if column.offsets is None:
        return [[value] for value in column.values.tolist()]
    bounds = zip(column.offsets[:-1], column.offsets[1:], strict=True)
    return [column.values[start:end].tolist() for start, end in bounds]


def fitted(dataset: Dataset) -> dict[str, object]:
    """What training alone decides: the size of each table and the rows of trained entities."""
    found: dict[str, object] = {name: level.tolist() for name, level in dataset.levels.items()}
    for entity in (dataset.users, dataset.items):
        known, *columns = entity.columns.values()
        is_trained = known.values > 0
        for name, column in zip(entity.columns, (known, *columns), strict=True):
            rows = [row for row, is_kept in zip(lists(column), is_trained, strict=True) if is_kept]
            found[name] = (column.num_embeddings, rows)
    interactions = dataset.interactions
    is_train = interactions.part == TRAIN
    for name in ("user", "item", "time", "source_row"):
        found[f"train {name}"] = getattr(interactions, name)[is_train].tolist()
    return found


@pytest.fixture
def small(tmp_path) -> Dataset:
    return prepare(write_folder(tmp_path / "small"))


def test_row_zero_is_the_unknown_entity(small):
    for entity in (small.users, small.items):
        assert entity.ids[0] is None
        assert entity.titles[0] == ""
        for name, column in entity.columns.items():
            assert lists(column)[0] == ([] if name == "genres" else [0])


def test_rows_are_the_catalogue_and_ids_are_fitted_on_training(small):
    assert small.items.ids.tolist() == [None, "i1", "i2", "i3", "i4", "i5", "i6"]
    assert list(small.items.columns) == ["item_id", "year", "genres"]
    assert small.items.columns["item_id"].values.tolist() == [0, 1, 2, 0, 0, 0, 0]
    assert small.items.columns["item_id"].num_embeddings == 3
    assert small.users.columns["user_id"].values.tolist() == [0, 1, 2, 3, 0]


def test_features_are_rows_of_what_training_knows(small):
    assert lists(small.items.columns["genres"]) == [[], [1, 2], [2], [0], [], [1, 0], [2]]
    assert small.items.columns["genres"].num_embeddings == 3
    assert small.items.columns["year"].values.tolist() == [0, 1, 1, 0, 1, 1, 1]
    assert small.users.columns["job"].values.tolist() == [0, 1, 2, 1, 0]


def test_text_is_the_template_filled_in(small):
    assert small.items.text["title"][1:5] == [
        "One (1990). a, b",
        "Two (2000). b",
        "Three. c",
        "Four, The (2010).",
    ]
    assert small.users.titles[1:] == ["u1", "u2", "u3", "u4"]


def test_missing_values_leave_no_litter_in_a_text(tmp_path):
    template = ("{title} ({year}). {genres}", "{genres}: {title} [{year}], {genres}")
    data = prepare(write_folder(tmp_path, {"schema.yaml": template}))
    assert data.items.text["title"][3:5] == ["c: Three, c", "Four, The [2010]"]


def test_interactions_are_sorted_by_user_time_and_source_row(small):
    found = small.interactions
    assert found.user.tolist() == [1, 1, 1, 1, 2, 2, 2, 3, 3]
    assert found.item.tolist() == [1, 2, 3, 4, 1, 2, 5, 1, 2]
    assert found.source_row.tolist() == [1, 2, 4, 5, 3, 0, 7, 6, 8]
    assert found.user_offsets.tolist() == [0, 0, 4, 7, 9, 9]
    assert found.part.tolist() == [
        *(TRAIN, TRAIN, VALIDATION, TEST),
        *(TRAIN, VALIDATION, TEST),
        *(TRAIN, TRAIN),
    ]


def test_labels_are_derived_and_missing_ones_are_nan(small):
    labels = small.interactions.labels
    np.testing.assert_array_equal(labels["rating"], [5, 3, 4, 2, 4, 1, 5, 4, np.nan])
    np.testing.assert_array_equal(labels["like"], [1, 0, 1, 0, 1, 0, 1, 1, np.nan])
    assert small.levels["rating"].tolist() == [3, 4, 5]


def test_what_is_fitted_does_not_change_with_what_is_held_out(small, tmp_path):
    held_out = {
        "u2,i2,1,5": "u2,i4,9,5",
        "u1,i3,4,3": "u1,i5,8,3",
        "u1,i4,2,3": "u1,i6,7,3",
        "u2,i5,5,6": "u2,i3,6,60",
    }
    folder = write_folder(tmp_path / "changed")
    table = (folder / "interactions.csv").read_text()
    for old, new in held_out.items():
        assert old in table
        table = table.replace(old, new)
    (folder / "interactions.csv").write_text(table)
    items = (folder / "items.csv").read_text()
    (folder / "items.csv").write_text(items.replace("i5,Five,2020,a|d", "i5,Other,1900,x|y|z"))
    assert fitted(prepare(folder)) == fitted(small)


def test_the_split_is_written_beside_the_data(small, tmp_path):
    split = pd.read_parquet(tmp_path / "small/splits/leave_one_out.parquet")
    assert list(split.columns) == ["row", "user_id", "item_id", "timestamp", "part"]
    assert split.row.tolist() == list(range(9))
    assert split.part.tolist() == [
        *("validation", "train", "train", "train", "validation", "test", "train", "test", "train")
    ]


def test_a_split_that_is_there_already_decides(tmp_path):
    folder = write_folder(tmp_path)
    first = prepare(folder)
    path = folder / "splits/leave_one_out.parquet"
    split = pd.read_parquet(path)
    split.loc[split.item_id == "i3", "part"] = "test"  # it ties with i4, so both orders are right
    split.loc[split.item_id == "i4", "part"] = "validation"
    split.to_parquet(path)
    second = prepare(folder)
    assert second.interactions.part[:4].tolist() == [TRAIN, TRAIN, TEST, VALIDATION]
    assert second.fingerprint != first.fingerprint


def test_a_prepared_folder_is_reused_until_an_input_changes(tmp_path):
    folder = write_folder(tmp_path)
    first = prepare(folder)
    before = files_of(folder)
    assert prepare(folder).fingerprint == first.fingerprint
    assert files_of(folder) == before
    (folder / "users.csv").write_text((folder / "users.csv").read_text().replace("cook", "chef"))
    assert prepare(folder).fingerprint != first.fingerprint


def test_arrays_are_mapped_from_files_yet_writable(small):
    for array in (small.interactions.user, small.items.columns["genres"].values):
        assert isinstance(array.base, np.memmap)
        assert array.flags.writeable


def test_text_numbers_and_parquet_give_the_same_data(small, tmp_path):
    folder = write_folder(tmp_path / "parquet")
    for name in ("users", "items", "interactions"):
        pd.read_csv(folder / f"{name}.csv").to_parquet(folder / f"{name}.parquet")
        (folder / f"{name}.csv").unlink()
    again = prepare(folder)
    assert fitted(again) == fitted(small)
    assert again.items.text == small.items.text


def test_bom_crlf_quotes_and_newlines_in_a_table_just_work(tmp_path):
    folder = write_folder(tmp_path, {"items.csv": ("i1,One,", 'i1,"One ""and""\nonly",')})
    table = (folder / "items.csv").read_text().replace("\r\n", "\n").splitlines()
    (folder / "items.csv").write_bytes(("\ufeff" + "\r\n".join(table) + "\r\n").encode())
    assert prepare(folder).items.titles[1].split() == ["One", '"and"', "only", "(1990).", "a,", "b"]


def test_movielens_is_prepared_whole(ml100k):
    dataset = prepare(ml100k)
    assert len(dataset.users.ids) == 944
    assert len(dataset.items.ids) == 1683
    assert np.bincount(dataset.interactions.part).tolist() == [98_114, 943, 943]
    assert dataset.items.titles[1] == "Toy Story (1995). Animation, Children's, Comedy"
    assert dataset.levels["rating"].tolist() == [1, 2, 3, 4, 5]
    assert {name: c.num_embeddings for name, c in dataset.items.columns.items()} == {
        "item_id": 1679,
        "year": 9,
        "genres": 19,
    }
