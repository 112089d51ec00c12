"""Tables in files and folders of parts, and the times and values in their columns."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from flm_torchrec.data.reading.tables import Table, read_chunks, read_table
from flm_torchrec.errors import UserError


def table(**columns: list) -> Table:
    return Table("here.csv", pa.table(columns))


def test_numbers_and_iso_dates_are_seconds():
    texts = ["5", "2024-05-01", "2024-05-01T00:00:30", "2024-05-01 00:01:00.25Z", " 1e3 "]
    texts += ["2024-05-01T02:00:00+02:00", "2024-05-01 02:00:00.123456789+0200"]
    day = 1_714_521_600
    found = table(t=texts).times("t")
    np.testing.assert_allclose(found, [5, day, day + 30, day + 60.25, 1000, day, day + 0.123456])


def test_whole_seconds_stay_whole():
    assert table(t=["1714521600", "7"]).times("t").dtype == np.int64


def test_timestamps_and_dates_of_parquet_are_seconds():
    when = pd.to_datetime(["2024-05-01T00:00:30.5"])
    assert table(t=pa.array(when)).times("t").tolist() == [1_714_521_630.5]
    utc = pa.array(when.tz_localize("Europe/Berlin"))
    assert table(t=utc).times("t").tolist() == [1_714_521_630.5 - 7200]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "1714521600000",
            "is too large for seconds since 1970, it looks like milliseconds: divide",
        ),
        (1714521600000000, "it looks like microseconds"),
        (1714521600000000000, "it looks like nanoseconds"),
        ("noon", "'noon' is not a number of seconds or a date such as"),
        ("2024-13-01", "'2024-13-01' is not a number of seconds or a date"),
        ("2090-01-01", "3786912000 seconds lie in the future"),
        (pd.Timestamp("2090-01-01"), "3786912000 seconds lie in the future"),
        ("", "is empty; a time in seconds is needed"),
    ],
)
def test_what_is_no_time_is_told(value, message):
    good = {str: "7", int: 7}.get(type(value), pd.Timestamp("2020-01-01"))
    with pytest.raises(UserError, match=f"here.csv: data row 2, column 't': .*{message}"):
        table(t=[good, value]).times("t")


def test_a_type_that_holds_no_numbers_is_told():
    with pytest.raises(UserError, match="column 'n' holds date32"):
        table(n=pa.array([5], pa.int32()).cast(pa.date32())).numbers("n")


def write_parts(folder, *parts: pa.Table):
    (folder / "items").mkdir()
    for place, part in enumerate(parts):
        parquet.write_table(part, folder / f"items/{place}.parquet")


def test_parts_are_read_by_name_and_may_differ_in_width(tmp_path):
    first = pa.table({"id": pa.array([1], pa.int32()), "x": ["a"]})
    write_parts(tmp_path, first, pa.table({"x": ["b"], "id": [2]}))
    (tmp_path / "items/_SUCCESS").write_text("")
    found = read_table(tmp_path, "items")
    assert found.ids("id").to_pylist() == [1, 2]
    assert found.path == tmp_path / "items"


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"id": [2]}, r"items/1.parquet: column 'x' is missing, but in items/0.parquet it holds"),
        ({"id": [2], "x": ["b"], "y": [1]}, r"column 'y' holds whole numbers, but in .* there is"),
        ({"id": ["2"], "x": ["b"]}, r"column 'id' holds texts, but in .* it holds whole numbers"),
        ({"id": [2], "x": [["b"]]}, r"column 'x' holds lists of texts, but in .* it holds texts"),
    ],
)
def test_parts_that_differ_are_told(tmp_path, part, message):
    write_parts(tmp_path, pa.table({"id": [1], "x": ["a"]}), pa.table(part))
    with pytest.raises(UserError, match=message):
        read_table(tmp_path, "items")


def test_a_part_may_be_without_values_or_hold_whole_numbers_where_others_hold_fractions(tmp_path):
    nothing = pa.table({"id": pa.nulls(1), "x": pa.nulls(1), "y": pa.nulls(1)})
    whole = pa.table({"id": [1], "x": pa.nulls(1), "y": [[1]]})
    write_parts(tmp_path, nothing, whole, pa.table({"id": [1.5], "x": ["a"], "y": [[0.5]]}))
    found = read_table(tmp_path, "items")
    assert found.numbers("id").to_pylist() == [None, 1.0, 1.5]
    assert found.texts("x").to_pylist() == [None, None, "a"]
    parquet.write_table(pa.table({"id": [2], "x": [3], "y": [[1]]}), tmp_path / "items/3.parquet")
    with pytest.raises(UserError, match=r"column 'x' holds whole numbers, but in items/2\.parquet"):
        read_table(tmp_path, "items")


def test_parts_of_two_kinds_and_tables_in_two_places_are_told(tmp_path):
    write_parts(tmp_path, pa.table({"id": [1]}))
    (tmp_path / "items/a.csv").write_text("id\n2\n")
    with pytest.raises(UserError, match=r"items/a.csv: items/0.parquet is parquet|parts are of a"):
        read_table(tmp_path, "items")
    (tmp_path / "items/a.csv").rename(tmp_path / "items.csv")
    with pytest.raises(UserError, match=r"has both items.csv and the folder items; one of them"):
        read_table(tmp_path, "items")
    (tmp_path / "items.csv").rename(tmp_path / "items/notes.md")
    with pytest.raises(UserError, match=r"notes.md: is no part; allowed are parquet, csv"):
        read_table(tmp_path, "items")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; a table with a header and data rows is needed"),
        (b"a,b\n", "has no data rows"),
        (b"a,b", "has no data rows"),
        (b"a,b\n1,2\n\n3\n4,5\n", "data row 2: 1 values where the header has 2: 3"),
        (b"a,b\n1,2,3\n", "data row 1: 3 values where the header has 2: 1,2,3"),
        (b"a,b\n1,2\n1,\xff\n", "cannot be read as csv: line 3 is not UTF-8 text"),
        (b"a,a\n1,2\n", "the header has a more than once"),
    ],
)
def test_a_csv_that_is_broken_is_told(tmp_path, content, message):
    (tmp_path / "items.csv").write_bytes(content)
    with pytest.raises(UserError, match=rf"items\.csv: {message}"):
        read_table(tmp_path, "items")


def test_chunks_of_a_csv_count_on(tmp_path):
    rows = "".join(f'{n},"line\r\n{n}"\r\n' for n in range(5))
    (tmp_path / "items.csv").write_bytes(("\ufeffid,text\r\n" + rows).encode())
    chunks = list(read_chunks(tmp_path, "items", 2))
    assert [chunk.first_row for chunk in chunks] == [0, 2, 4]
    assert [chunk.texts("text").to_pylist()[0] for chunk in chunks][1] == "line\r\n2"
    assert "data row 5, column 'id': odd" in str(chunks[2].problem(0, "id", "odd"))


def test_a_corpus_may_be_texts_line_by_line(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/b.txt").write_text("three\n")
    (tmp_path / "corpus/a.txt").write_text("\ufeffone\n\n two \n")
    assert read_table(tmp_path, "corpus").texts("text").to_pylist() == ["one", None, "two", "three"]
