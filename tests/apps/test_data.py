"""`flm data`: what it writes, and what bad input leads to: exit code 2, and nothing written."""

from pathlib import Path

import pandas as pd
import pytest
from flm_apps.data import main
from small_data import files_of, write_folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_folder(tmp_path / "data")


def refused(capfd, *argv: str | Path) -> str:
    """What is printed on stderr by a command that has to end with exit code 2."""
    assert main([str(argument) for argument in argv]) == 2
    printed = capfd.readouterr().err
    assert printed.startswith("flm: error: ")
    assert "Traceback" not in printed
    return printed


def test_prepare_tells_what_the_folder_holds(folder, capfd):
    assert main(["prepare", str(folder)]) == 0
    printed = capfd.readouterr().out
    assert "4 users, 6 items, 9 interactions (train 5, validation 2, test 2)" in printed
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"splits", "prepared"}


def test_fetch_writes_a_folder_that_prepare_reads(tmp_path, capfd):
    out = tmp_path / "ml-100k"
    assert main(["fetch", "movielens-100k", "--out", str(out)]) == 0
    assert main(["prepare", str(out)]) == 0
    assert "943 users, 1,682 items, 100,000 interactions" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("interactions.csv", "rating,", "ratin,", "no column 'rating' (did you mean 'ratin'?)"),
        ("interactions.csv", "time\n", "when\n", "interactions.csv: no column 'time'; it has user"),
        ("items.csv", "genres", "kinds", "items.csv: no column 'genres'"),
        ("items.csv", "title,", "name,", "items.csv: no column 'title'"),
        (
            "interactions.csv",
            "u1,i2,3,2",
            "u1,i2,abc,2",
            "interactions.csv: data row 3, column 'rating': 'abc' is not a number",
        ),
        (
            "interactions.csv",
            "u1,i2,3,2",
            "u1,i2,3,noon",
            "interactions.csv: data row 3, column 'time': 'noon' is not a number",
        ),
        ("interactions.csv", "u1,i2,3,2", "u1,i2,3,", "data row 3, column 'time': is empty"),
        ("interactions.csv", "u1,i2,3,2", ",i2,3,2", "data row 3, column 'user': is empty"),
        ("interactions.csv", "u1,i2,3,2", "u1,i2,3", "data row 3: 3 values where the header has 4"),
        (
            "interactions.csv",
            "u1,i2,3,2",
            "u9,i2,3,2",
            "data row 3, column 'user': u9 is no id of users.csv, which must list them all",
        ),
        (
            "interactions.csv",
            "u1,i2,3,2",
            "u1,i9,3,2",
            "data row 3, column 'item': i9 is no id of items.csv, which must list them all",
        ),
        (
            "interactions.csv",
            "u1,i2,3,2",
            "u1,i1,3,2",
            "data row 3, column 'item': this user met this item in data row 2 already",
        ),
        (
            "items.csv",
            "i6,Six",
            "i2,Six",
            "items.csv: data row 6, column 'item_id': id i2 is already in data row 2",
        ),
        ("items.csv", "2030", "soon", "items.csv: data row 6, column 'year': 'soon' is not a num"),
        ("users.csv", "u4,70", ",70", "users.csv: data row 4, column 'user_id': is empty"),
        ("users.csv", "age,job", "job,job", "users.csv: the header has job more than once"),
        ("schema.yaml", "rating >= 4", "stars >= 4", "interactions.csv: no column 'stars'"),
        ("schema.yaml", "rating >= 4", "item >= 4", "data row 1, column 'item': 'i2' is not a num"),
        ("schema.yaml", ', value: "rating >= 4"', "", "interactions.csv: no column 'like'"),
        ("schema.yaml", "buckets: 2", "bukets: 2", "users.features.age.bukets: there is no such"),
    ],
)
def test_bad_data_is_told_by_place_and_nothing_is_written(tmp_path, capfd, file, old, new, message):
    folder = write_folder(tmp_path / "data", {file: (old, new)})
    before = files_of(tmp_path)
    assert message in refused(capfd, "prepare", folder)
    assert files_of(tmp_path) == before
    assert not (folder / "splits").exists()


def test_a_proposal_for_a_remote_folder_is_not_written(capfd):
    told = refused(capfd, "infer", "--write", "memory://data")
    assert "memory://data/schema.yaml: --write needs a folder of this machine" in told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "items.csv: is empty; a table with a header and data rows is needed"),
        ("item_id,title,year,genres\n", "items.csv: has no data rows"),
        (None, "has neither of items.parquet and items.csv; one of them is needed"),
        ("item_id,title,year,genres\ni1,\xff,1,a\n", "items.csv: cannot be read as csv: line 2 is"),
    ],
)
def test_a_table_that_is_empty_or_missing_is_told(folder, capfd, content, message):
    path = folder / "items.csv"
    path.unlink() if content is None else path.write_bytes(content.encode("latin-1"))
    assert message in refused(capfd, "prepare", folder)
    assert not (folder / "splits").exists()


def test_a_truncated_parquet_file_is_told(folder, capfd):
    (folder / "items.csv").unlink()
    (folder / "items.parquet").write_bytes(b"PAR1 and no more")
    assert "items.parquet: cannot be read as parquet" in refused(capfd, "prepare", folder)


def test_a_binary_label_of_other_values_is_told(tmp_path, capfd):
    folder = write_folder(
        tmp_path, {"schema.yaml": ('like: {kind: binary, value: "rating >= 4"}', "like: x")}
    )
    schema = (folder / "schema.yaml").read_text()
    (folder / "schema.yaml").write_text(
        schema.replace("like: x, rating: {kind: ordinal}", "rating: {kind: binary}")
    )
    message = "data row 2, column 'rating': 5 is not allowed; a binary label is 0, 1 or empty"
    assert message in refused(capfd, "prepare", folder)


def test_a_missing_folder_and_a_missing_schema_are_told(folder, tmp_path, capfd):
    assert "there is no such folder" in refused(capfd, "prepare", tmp_path / "nothing")
    (folder / "schema.yaml").unlink()
    assert "schema.yaml: there is no such file" in refused(capfd, "prepare", folder)


@pytest.mark.parametrize(
    ("column", "row", "value", "message"),
    [
        ("user_id", 3, "u4", "data row 4, column 'user_id': u4, but the interaction has u2"),
        ("timestamp", 3, 40, "data row 4, column 'timestamp': 40, but the interaction has 4"),
        ("part", 3, "dev", "column 'part': 'dev' is not allowed; it is one of train, validation"),
        ("part", 3, "test", "data row 4 is test, but the same user's later interaction in data"),
        ("row", 3, 8, "data row 4, column 'row': 8, but the interaction has 3"),
    ],
)
def test_a_split_file_that_does_not_fit_is_told(folder, capfd, column, row, value, message):
    assert main(["prepare", str(folder)]) == 0
    path = folder / "splits/leave_one_out.parquet"
    split = pd.read_parquet(path)
    split.loc[row, column] = value
    split.to_parquet(path)
    before = files_of(folder)
    assert message in refused(capfd, "prepare", folder)
    assert files_of(folder) == before


def test_a_split_of_more_interactions_is_told(folder, capfd):
    assert main(["prepare", str(folder)]) == 0
    table = folder / "interactions.csv"
    table.write_text(table.read_text() + "u4,i1,5,9\n")
    message = "does not fit the interactions: it has 9 rows, the interactions 10; remove the file"
    assert message in refused(capfd, "prepare", folder)


def test_fetch_leaves_a_folder_that_holds_something_alone(folder, capfd):
    before = files_of(folder)
    message = "exists and is not an empty folder; nothing was changed"
    assert message in refused(capfd, "fetch", "movielens-100k", "--out", folder)
    assert files_of(folder) == before


def test_fetch_refuses_a_wheel_of_other_content(tmp_path, capfd):
    wheel = tmp_path / "recbole-1.2.1-py3-none-any.whl"
    wheel.write_bytes(b"another")
    out = tmp_path / "out"
    printed = refused(capfd, "fetch", "movielens-100k", "--out", out, "--from", wheel)
    assert f"{wheel}: sha256 is " in printed
    assert not out.exists()


def test_fetch_tells_which_file_its_folder_lacks(tmp_path, capfd):
    printed = refused(
        capfd, "fetch", "movielens-100k", "--out", tmp_path / "out", "--from", tmp_path
    )
    assert f"{tmp_path / 'ml-100k.user'}: there is no such file" in printed


def test_fetch_without_a_network_says_how_to_go_on(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    printed = refused(capfd, "fetch", "movielens-100k", "--out", tmp_path / "out")
    assert "pip cannot download recbole==1.2.1" in printed
    assert "--from PATH" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("argv", [[], ["fetch", "movielens-1m", "--out", "x"], ["prepare"]])
def test_a_wrong_command_line_is_refused(argv, capfd):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage: flm data" in capfd.readouterr().err
