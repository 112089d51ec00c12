"""Rows of the interactions that cannot be used: an error, left out, or put aside; never silent."""

import json
from pathlib import Path

import pandas as pd
import pytest
from small_data import LOG, SMALL, write_folder

from flm_torchrec.data.prepare import prepare
from flm_torchrec.data.preparing import stage_log
from flm_torchrec.errors import UserError

GOOD = LOG["interactions.csv"]
BAD = [
    (3, "price", "'much' is not a number", "7,b,10,1,much,phone,x,,"),
    (5, "user", "is empty; an id is needed", ",b,10,1,1,phone,x,,"),
    (6, "", "3 values where the header has 9", "7,b,10"),
    (7, "time", "is empty; a time in seconds is needed", "7,b,,1,1,phone,x,,"),
    (8, "click", "3 is not allowed; a binary label is 0, 1 or empty", "7,b,10,3,1,phone,x,,"),
    (9, "place", "'?' is not a finite number", "7,b,10,1,1,phone,x,1;?,"),
    (10, "place", "has 3 numbers where others have 2", "7,b,10,1,1,phone,x,1;2;3,"),
]


def log_with(folder: Path, policy: str, bad=BAD) -> Path:
    """The log with bad rows, which stand where they say, from 1."""
    header, *lines = GOOD.splitlines()
    for row, *_, line in bad:
        lines.insert(row - 1, line)
    schema = LOG["schema.yaml"] + f"on_bad_rows: {policy}\n"
    files = {"interactions.csv": "\n".join([header, *lines]) + "\n", "schema.yaml": schema}
    return write_folder(folder, files=files)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad[1] or "columns")
def test_a_bad_row_is_an_error_unless_the_schema_says_otherwise(tmp_path, bad):
    row, column, reason, _ = bad
    with pytest.raises(UserError) as raised:
        prepare(log_with(tmp_path, "error", [bad]))
    where = f"data row {row}, column '{column}'" if column else f"data row {row}"
    assert f"interactions.csv: {where}: {reason}" in str(raised.value)


@pytest.mark.parametrize("chunk_rows", [2, 3, 100])
@pytest.mark.parametrize("policy", ["skip", "quarantine"])
def test_bad_rows_are_left_out_and_counted(tmp_path, monkeypatch, policy, chunk_rows):
    monkeypatch.setattr(stage_log, "CHUNK_ROWS", chunk_rows)
    told: list[str] = []
    folder = log_with(tmp_path / "bad", policy)
    data = prepare(folder, progress=told.append)
    clean = prepare(write_folder(tmp_path / "clean", files=LOG))
    for name in ("user", "item", "time", "before", "events", "part"):
        ours, theirs = (getattr(one.interactions, name).tolist() for one in (data, clean))
        assert ours == theirs
    assert data.users.ids.tolist() == clean.users.ids.tolist()
    kept = [row for row in range(17) if row + 1 not in {row for row, *_ in BAD}]
    assert data.interactions.source_row.tolist() == kept
    meta = json.loads((folder / "prepared" / data.fingerprint / "meta.json").read_text())
    counts = {"": 1, "price": 1, "user": 1, "time": 1, "click": 1, "place": 2}
    assert meta["bad_rows"] == counts
    assert told[-1].startswith("interactions: 7 bad rows were left out: ")
    quarantine = folder / "quarantine/interactions.csv"
    assert quarantine.exists() is (policy == "quarantine")


def test_the_quarantine_tells_row_column_reason_and_value(tmp_path):
    folder = log_with(tmp_path, "quarantine")
    prepare(folder)
    found = pd.read_csv(folder / "quarantine/interactions.csv", keep_default_na=False)
    assert found["row"].tolist() == [row for row, *_ in BAD]
    assert found["column"].tolist() == [column for _, column, *_ in BAD]
    for told, (_, _, reason, _) in zip(found["reason"], BAD, strict=True):
        assert reason in told
    assert found["value"].tolist() == ["much", "", "7,b,10", "", "3", "?", "3"]


def test_an_id_that_a_catalogue_lacks_is_a_bad_row(tmp_path):
    folder = write_folder(tmp_path, {"users.csv": ("u3,,cook\n", "")})
    with pytest.raises(UserError, match=r"data row 7, column 'user': u3 is no id of users\.csv"):
        prepare(folder)
    (folder / "schema.yaml").write_text(SMALL["schema.yaml"] + "on_bad_rows: skip\n")
    data = prepare(folder)
    assert data.users.ids.tolist() == [None, "u1", "u2", "u4"]
    assert data.interactions.source_row.tolist() == [1, 2, 4, 5, 3, 0, 7]


def test_more_bad_rows_than_good_ones_are_an_error(tmp_path):
    bad = [(row, "price", "", "7,b,10,1,much,phone,x,,") for row in range(1, 12)]
    with pytest.raises(UserError) as raised:
        prepare(log_with(tmp_path, "skip", bad))
    assert "11 of 21 data rows cannot be used, more than half" in str(raised.value)
    assert "data row 1, column 'price': 'much' is not a number ('much')" in str(raised.value)


def test_a_quarantine_of_earlier_data_goes_when_nothing_is_bad(tmp_path):
    folder = log_with(tmp_path, "quarantine")
    prepare(folder)
    log_with(tmp_path, "quarantine", [])
    (folder / "splits/time.parquet").unlink()
    prepare(folder)
    assert not (folder / "quarantine/interactions.csv").exists()


def test_a_quarantine_file_that_is_gone_is_written_again(tmp_path):
    folder = log_with(tmp_path, "quarantine")
    prepare(folder)
    file = folder / "quarantine/interactions.csv"
    whole = file.read_text()
    for change in (file.unlink, lambda: file.write_text("of other data")):
        change()
        prepare(folder)
        assert file.read_text() == whole
