import numpy as np
import pandas as pd
import pytest

from flm_torchrec.data.checking.check import check

SCHEMA = """items:
  id: item
  features: {kind: categorical}
  text: {title: "{title}"}
interactions:
  user: user
  item: item
  time: time
  context: {device: categorical, price: numeric}
  labels: {click: binary}
"""


def write_log(folder, schema=SCHEMA, **columns):
    """A folder of 120 interactions that are all right; `columns` replaces some of them."""
    rng, rows = np.random.default_rng(0), 120
    log = {
        "user": np.repeat(np.arange(12), 10),
        "item": rng.integers(0, 30, rows),
        "time": 1_600_000_000 + np.arange(rows),
        "click": rng.integers(0, 2, rows),
        "device": rng.choice(["phone", "tv"], rows),
        "price": rng.uniform(1, 9, rows),
    }
    items = {"item": np.arange(30), "kind": rng.choice(["a", "b"], 30)}
    items["title"] = rng.choice(["red hat", "blue hat", "old shoe"], 30)
    folder.mkdir(exist_ok=True)
    for table, name in ((items, "items"), (log, "interactions")):
        changed = {key: columns.get(f"{name}_{key}", column) for key, column in table.items()}
        pd.DataFrame(changed).to_csv(folder / f"{name}.csv", index=False)
    (folder / "schema.yaml").write_text(schema)
    return folder


def clicks(folder):
    return pd.read_csv(folder / "interactions.csv")["click"].to_numpy()


def test_a_part_that_cannot_be_read_does_not_hide_the_others(tmp_path):
    folder = write_log(tmp_path)
    log = pd.read_csv(folder / "interactions.csv")
    (folder / "interactions.csv").unlink()
    (folder / "interactions").mkdir()
    log.to_parquet(folder / "interactions" / "0.parquet")
    log.to_parquet(folder / "interactions" / "2.parquet", row_group_size=50)
    whole = (folder / "interactions" / "2.parquet").read_bytes()
    (folder / "interactions" / "2.parquet").write_bytes(whole[:40] + b"x" * 400 + whole[440:])
    report = check(folder)
    assert any("2.parquet: cannot be read as parquet" in line for line in report.problems)
    assert "distinct users: 12" in report.tables["interactions"].facts


def test_a_label_of_one_class_is_a_problem(tmp_path):
    problems = check(write_log(tmp_path, interactions_click=np.ones(120, int))).problems
    assert problems == ["interactions: the label 'click' is 1 in all rows"]


def test_a_label_of_one_class_in_training_is_a_problem(tmp_path):
    schema = SCHEMA + "  history: none\n  order: by_log\n"
    click = (np.arange(120) >= 110).astype(int)
    problems = check(write_log(tmp_path, schema, interactions_click=click)).problems
    assert problems == ["interactions: the label 'click' is 0 in all training rows"]


def test_a_split_that_leaves_a_part_empty_is_a_problem(tmp_path):
    schema = SCHEMA + "split: time\n"
    time = np.full(120, 1_600_000_000) + (np.arange(120) >= 60)
    (problem,) = check(write_log(tmp_path, schema, interactions_time=time)).problems
    assert "split: time of 120 interactions leaves none for validation" in problem


def test_a_binary_label_beyond_0_and_1_is_a_problem(tmp_path):
    (problem,) = check(write_log(tmp_path, interactions_click=np.arange(120) % 3)).problems
    assert "data row 3, column 'click': 2 is not allowed" in problem


def test_a_label_that_is_missing_everywhere_is_a_problem(tmp_path):
    problems = check(write_log(tmp_path, interactions_click=[None] * 120)).problems
    assert problems == ["interactions: the label 'click' is missing in all rows"]


def test_vectors_of_different_lengths_are_a_problem(tmp_path):
    schema = SCHEMA.replace("{kind: categorical}", '{kind: {kind: vector, separator: " "}}')
    folder = write_log(tmp_path, schema, items_kind=["1 2", "1 2 3"] * 15)
    (problem,) = check(folder).problems
    assert "data row 2, column 'kind': has 3 numbers where others have 2" in problem


def test_unknown_ids_that_the_schema_allows_are_a_warning(tmp_path):
    schema = SCHEMA + "  unknown_ids: unknown\n"
    report = check(write_log(tmp_path, schema, items_item=np.arange(30) + 5))
    assert report.problems == []
    (warning,) = report.warnings
    assert "is no id of items" in warning


def test_a_sound_log_has_no_warning(tmp_path):
    report = check(write_log(tmp_path))
    assert report.problems == report.warnings == []


def test_a_context_feature_that_equals_the_label_is_warned_of(tmp_path):
    click = clicks(write_log(tmp_path))
    (warning,) = check(write_log(tmp_path, interactions_price=click)).warnings
    assert "column 'price' holds the label 'click': it equals it" in warning


def test_numbers_that_tell_the_classes_apart_are_warned_of(tmp_path):
    click = clicks(write_log(tmp_path))
    price = click * 10 + np.linspace(0, 1, 120)
    (warning,) = check(write_log(tmp_path, interactions_price=price)).warnings
    assert "column 'price' holds the label 'click': its ranges do not overlap" in warning


def test_categories_that_decide_the_label_are_warned_of(tmp_path):
    click = clicks(write_log(tmp_path))
    device = np.where(click == 1, np.tile(["a", "b"], 60), np.tile(["c", "d"], 60))
    (warning,) = check(write_log(tmp_path, interactions_device=device)).warnings
    assert "column 'device' holds the label 'click': each of its values" in warning


def test_a_text_that_names_the_label_is_warned_of(tmp_path):
    item = np.tile(np.arange(30), 4)
    title = [f"hat number {i % 7}, {'bought' if i % 2 else 'left'} often" for i in range(30)]
    folder = write_log(
        tmp_path, interactions_item=item, interactions_click=item % 2, items_title=title
    )
    (warning,) = check(folder).warnings
    assert "items: text 'title' holds the label 'click'" in warning
    assert "'left'" in warning


def test_a_class_that_is_nearly_absent_is_warned_of(tmp_path):
    folder = write_log(tmp_path)
    log = pd.read_csv(folder / "interactions.csv")
    log = pd.concat([log.assign(click=0)] * 20)
    log.iloc[7, log.columns.get_loc("click")] = 1
    log.to_csv(folder / "interactions.csv", index=False)
    (warning,) = check(folder).warnings
    assert "the label 'click' is hardly ever 1: 1 (0.04%)" in warning


def test_a_time_that_is_the_same_everywhere_is_warned_of(tmp_path):
    (warning,) = check(write_log(tmp_path, interactions_time=np.full(120, 1_600_000_000))).warnings
    assert "the time is the same in all rows" in warning


@pytest.mark.parametrize(
    ("other", "what"), [("u1 ", "blanks around them, as 'u1 '"), ("U1", "u1 and U1 differ only")]
)
def test_ids_that_are_spelt_in_two_ways_are_warned_of(tmp_path, other, what):
    users = np.array(["u1", other, "u2"])[np.arange(120) % 3]
    (warning,) = check(write_log(tmp_path, interactions_user=users)).warnings
    assert what in warning
