"""`prepare` of logs: context, labels, histories of what came strictly before, texts of reviews."""

import numpy as np
import pytest
from small_data import LOG, write_folder

from flm_torchrec.data.dataset import TEST, TRAIN, VALIDATION, Dataset
from flm_torchrec.data.prepare import prepare
from flm_torchrec.errors import UserError

nan = np.nan


@pytest.fixture
def log(tmp_path) -> Dataset:
    return prepare(write_folder(tmp_path / "log", files=LOG))


def test_a_log_keeps_the_order_of_the_source(log):
    found = log.interactions
    assert found.source_row.tolist() == list(range(10))
    assert found.part.tolist() == [TRAIN] * 8 + [VALIDATION, TEST]
    assert found.time.tolist() == [10, 10, 20, 20, 30, 30, 40, 40, 50, 60]


def test_users_and_items_without_a_file_are_the_ids_of_all_interactions(log):
    assert log.users.ids.tolist() == [None, 7, 8, 9]
    assert log.items.ids.tolist() == [None, "a", "b", "c", "d"]
    assert log.users.columns["user"].values.tolist() == [0, 1, 2, 0]
    assert log.items.columns["item"].values.tolist() == [0, 1, 2, 3, 0]
    assert log.interactions.user.tolist() == [1, 2, 1, 1, 2, 1, 2, 1, 3, 1]


def test_a_history_is_what_came_strictly_before(log):
    found = log.interactions
    assert found.events.tolist() == [0, 3, 7, 4, 8]
    assert found.user_offsets.tolist() == [0, 0, 3, 4, 5]
    assert found.before.tolist() == [0, 0, 1, 1, 0, 2, 1, 2, 0, 3]
    assert found.positive.tolist() == (found.labels["click"] == 1).tolist()


def test_a_label_is_missing_where_its_condition_does_not_hold(log):
    paid = log.interactions.labels["paid"]
    np.testing.assert_array_equal(paid, [1, nan, nan, 0, 0, nan, nan, 1, 1, nan])


def test_context_is_rows_of_what_training_knows(log):
    context = log.interactions.context
    assert list(context) == ["price", "device", "tags"]
    assert context["device"].values.tolist() == [1, 2, 1, 0, 2, 2, 1, 1, 0, 0]
    assert context["device"].values.dtype == np.int32
    assert context["device"].offsets is None
    assert context["price"].values.tolist() == [2, 1, 0, 1, 1, 2, 2, 2, 2, 2]
    assert context["tags"].values.tolist() == [1, 2, 2, 1, 3, 1, 1, 2, 2, 1, 0, 0]
    assert context["tags"].offsets.tolist() == [0, 2, 3, 3, 4, 6, 7, 8, 10, 11, 12]


def test_numbers_of_the_context_are_ranks_in_training_and_then_vectors(log):
    numbers = log.interactions.numbers
    assert numbers.shape == (10, 3)
    # Training has 1, 2, 2, 3.5, 4, 8, 9; the two others are greater.
    ranks = [0, -1, 0, -0.5, -0.5, 2 / 3, 1, 1 / 3, 1, 1]
    np.testing.assert_allclose(numbers[:, 0], ranks, atol=1e-6)
    assert numbers[:5, 1:].tolist() == [[1, 0], [0, 1], [1, 1], [0, 0], [0, 0]]


def test_reviews_are_the_latest_of_training(log):
    assert log.items.text["said"] == ["", "bad", "nice great", "poor fine", ""]


def test_by_user_sorts_the_context_along(tmp_path, log):
    changes = {"schema.yaml": ("by_log", "by_user\nsplit: time")}
    found = prepare(write_folder(tmp_path / "users", changes, LOG)).interactions
    order = [0, 2, 3, 5, 7, 9, 1, 4, 6, 8]
    assert found.source_row.tolist() == order
    assert found.before.tolist() == [0, 1, 1, 2, 2, 3, 0, 0, 1, 0]
    assert found.events.tolist() == [0, 2, 4, 7, 9]
    expected = log.interactions
    np.testing.assert_array_equal(found.numbers, expected.numbers[order])
    np.testing.assert_array_equal(found.labels["paid"], expected.labels["paid"][order])
    for name, column in found.context.items():
        before = expected.context[name]
        if column.offsets is None:
            assert column.values.tolist() == before.values[order].tolist()
        else:
            rows = [before.values[before.offsets[r] : before.offsets[r + 1]] for r in order]
            assert column.values.tolist() == np.concatenate(rows).tolist()


CLICKS = {
    "interactions.csv": "device,kind,click\n"
    + "".join(f"{'pt'[row % 2]},{'xyz'[row % 3]},{row % 2}\n" for row in range(20)),
    "schema.yaml": """interactions:
  context: {device: categorical}
  labels: {click: binary}
  history: none
  order: by_log
""",
}


def test_context_alone_needs_neither_users_nor_items_nor_time(tmp_path):
    data = prepare(write_folder(tmp_path, files=CLICKS))
    found = data.interactions
    assert data.users is data.items is None
    assert found.user.tolist() == found.item.tolist() == found.time.tolist() == [0] * 20
    assert found.part.tolist() == [TRAIN] * 16 + [VALIDATION] * 2 + [TEST] * 2
    assert (len(found.events), found.user_offsets.tolist()) == (0, [0, 0])
    assert found.positive.all()
    assert not found.before.any()


def labelled(tmp_path, label: str) -> Dataset:
    return prepare(write_folder(tmp_path, {"schema.yaml": ("click: binary", label)}, CLICKS))


def test_classes_that_are_texts_are_numbered_in_order(tmp_path):
    data = labelled(tmp_path, "kind: multiclass")
    assert data.interactions.labels["kind"][:4].tolist() == [0, 1, 2, 0]
    assert data.levels["kind"].tolist() == [0, 1, 2]


def test_classes_that_are_numbers_stay_what_they_are(tmp_path):
    folder = write_folder(tmp_path, {"schema.yaml": ("click: binary", "n: multiclass")}, CLICKS)
    rows = (folder / "interactions.csv").read_text().replace("click", "n").replace(",1\n", ",2.5\n")
    (folder / "interactions.csv").write_text(rows)
    data = prepare(folder)
    assert data.interactions.labels["n"][:3].tolist() == [0, 2.5, 0]
    assert data.levels["n"].tolist() == [0, 2.5]


def test_a_real_label_has_the_moments_of_training(tmp_path):
    assert labelled(tmp_path, "click: real").moments == {"click": (0.5, 0.5)}


def test_a_label_may_always_hold(tmp_path):
    data = labelled(tmp_path, "seen: always")
    assert data.interactions.labels["seen"].tolist() == [1.0] * 20


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("a: {kind: binary, value: click >= 0}", "label 'a' is 1 in all training rows"),
        ("click: {kind: ordinal, where: click == 1}", "'click': an ordinal label needs two"),
        ("click: {kind: real, where: click == 7}", "label 'click' is missing in all rows"),
        ("kind: {kind: multiclass, where: kind == x}", "'kind': a multiclass label needs two"),
    ],
)
def test_a_label_of_one_class_is_told(tmp_path, label, message):
    with pytest.raises(UserError, match=message):
        labelled(tmp_path, label)


def test_a_corpus_alone_has_no_interactions(tmp_path):
    files = {"corpus.txt": "one two\n\n three \n", "schema.yaml": 'corpus: "{text}"\n'}
    data = prepare(write_folder(tmp_path, files=files))
    assert data.corpus == ["one two", "three"]
    assert data.users is data.items is None
    assert len(data.interactions.user) == 0
    assert prepare(tmp_path).fingerprint == data.fingerprint


def test_a_corpus_may_be_a_table_beside_interactions(tmp_path):
    schema = CLICKS["schema.yaml"] + 'corpus: "{title}: {body}"\n'
    files = {**CLICKS, "schema.yaml": schema, "corpus.csv": "title,body\nA,b\n,c\n,\n"}
    data = prepare(write_folder(tmp_path, files=files))
    assert data.corpus == ["A: b", "c"]
    assert len(data.interactions.user) == 20
