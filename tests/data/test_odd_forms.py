"""What looks broken and has to work: the same data in odd forms; and bad rows left out."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from broken_folders import (
    Change,
    column_of,
    contents,
    in_parquet,
    moved,
    recoded,
    replaced,
    written,
)
from flm_apps.data import main
from small_data import LOG, SMALL, write_folder

from flm_torchrec.data.checking.check import check
from flm_torchrec.data.prepare import prepare

MET, USERS, ITEMS, SCHEMA = "interactions.csv", "users.csv", "items.csv", "schema.yaml"


def quoted(content: bytes) -> bytes:
    """Every value in quotes."""
    header, *rows = content.replace(b'"Four, The"', b"Four# The").splitlines()
    rows = [b'"' + row.replace(b",", b'","').replace(b"#", b",") + b'"' for row in rows]
    return b"\n".join([header, *rows])


def dated(folder: Path) -> None:
    frame = pd.read_csv(folder / MET, dtype={"rating": str})
    frame["time"] = [f"1970-01-01T00:00:0{second}Z" for second in frame["time"]]
    frame.to_csv(folder / MET, index=False)


def in_parts(folder: Path) -> None:
    header, *rows = (folder / MET).read_text().splitlines(keepends=True)
    moved(MET, "interactions/0.csv")(folder)
    for part, some in enumerate((rows[:4], [], rows[4:])):
        written(f"interactions/{part}.csv", header + "".join(some))(folder)


def reordered(folder: Path) -> None:
    """Columns in another order, and one more that nobody asked for."""
    frame = pd.read_csv(folder / MET, dtype=str).assign(note="?")
    frame[["time", "note", "item", "rating", "user"]].to_csv(folder / MET, index=False)


def listed(folder: Path) -> None:
    genres = [["a", "b"], ["b"], ["c", None], None, ["a", "d"], ["b"]]
    in_parquet("items", genres=genres)(folder)
    replaced(SCHEMA, ', separator: "|"', "")(folder)


FORMS: dict[str, Change] = {
    "BOM": recoded(MET, lambda content: b"\xef\xbb\xbf" + content),
    "BOM of the schema": recoded(SCHEMA, lambda content: b"\xef\xbb\xbf" + content),
    "CRLF": recoded(MET, lambda content: content.replace(b"\n", b"\r\n")),
    "CR": recoded(MET, lambda content: content.replace(b"\n", b"\r")),
    "blank lines": recoded(MET, lambda content: b"\n" + content.replace(b"\n", b"\n\n")),
    "no newline at the end": recoded(MET, bytes.rstrip),
    "all in quotes": recoded(ITEMS, quoted),
    "blanks around numbers": replaced(MET, "u1,i2,3,2", "u1,i2, 3 , 2"),
    "numbers as fractions": replaced(MET, "u1,i2,3,2", "u1,i2,3.0,2e0"),
    "dates for seconds": dated,
    "parts, one without rows": in_parts,
    "other columns": reordered,
    "lists for separators": listed,
    "separators at the ends": replaced(ITEMS, "a|b", "|a||b|"),
    "a folder beside the file": lambda folder: (folder / "items").mkdir(),
}


@pytest.mark.parametrize("change", FORMS.values(), ids=FORMS)
def test_the_same_data_in_another_form_is_the_same(tmp_path: Path, change: Change) -> None:
    plain = contents(prepare(write_folder(tmp_path / "plain")))
    folder = write_folder(tmp_path / "odd")
    change(folder)
    assert contents(prepare(folder)) == plain
    assert check(folder).problems == []


def test_quotes_commas_and_newlines_in_a_title_stay(tmp_path: Path) -> None:
    title = 'Ä "b",\r\nc\n'
    folder = write_folder(tmp_path, {ITEMS: ("i1,One", 'i1,"Ä ""b"",\r\nc\n"')})
    data = prepare(folder)
    assert data.items is not None
    assert data.items.text["title"][1] == f"{title} (1990). a, b"


RESERVED = ("class", "index", "id", "type", "values", "text", "row", "forward", "self", "label")


@pytest.mark.parametrize(("section", "column"), [("context", "device"), ("labels", "click")])
def test_columns_may_have_any_name(tmp_path: Path, section: str, column: str) -> None:
    schema = yaml.safe_load(LOG[SCHEMA])
    declared = schema["interactions"][section]
    declared |= dict.fromkeys(RESERVED, declared[column])
    folder = write_folder(tmp_path, files={**LOG, SCHEMA: yaml.safe_dump(schema)})
    frame = pd.read_csv(folder / MET, dtype=str)
    for name in RESERVED:
        frame[name] = frame[column]
    frame.to_csv(folder / MET, index=False)
    found, kind = contents(prepare(folder)), section.removesuffix("s")
    assert [name for name in RESERVED if found[f"{kind} {name}"] != found[f"{kind} {column}"]] == []


def test_ids_that_look_alike_stay_what_they_are(tmp_path: Path) -> None:
    ids = ["7", "007", "7.0", "7 ", "+7", "e\u0301", "\u00e9", "u", "U"]
    schema = "interactions: {user: user, item: item, time: time}\n"
    rows = "".join(f'"{id}",i,{time}\n' for time, id in enumerate(ids))
    files = {MET: "user,item,time\n" + rows, SCHEMA: schema}
    folder = write_folder(tmp_path, files=files)
    data = prepare(folder)
    assert data.users is not None
    assert sorted(data.users.ids[1:]) == sorted(ids)
    warnings = check(folder).warnings
    assert any("blanks around them, as '7 ' has" in line for line in warnings)
    assert any("u and U differ only by case" in line for line in warnings)


def test_users_that_the_table_lacks_are_new_ones_where_the_schema_says_so(tmp_path: Path) -> None:
    changes = {SCHEMA: ("repeats: false", "unknown_ids: unknown"), MET: ("u1,i2,3", "u9,i2,3")}
    data = prepare(write_folder(tmp_path, changes))
    assert data.users is not None
    assert data.users.ids[1:].tolist() == ["u1", "u2", "u3", "u4", "u9"]
    assert data.users.columns["job"].values[-1] == 0


def test_a_text_that_holds_the_label_is_warned_of(tmp_path: Path, capfd) -> None:
    rows = "".join(
        f"u{n % 9},i{n},{n},{n % 2},{['left', 'bought'][n % 2]} thing {n % 7}\n" for n in range(90)
    )
    schema = """items: {id: item, text: {said: {interactions: "{said}"}}}
interactions: {user: user, item: item, time: time, labels: {click: binary}}
"""
    write_folder(tmp_path, files={MET: "user,item,time,click,said\n" + rows, SCHEMA: schema})
    assert main(["check", str(tmp_path)]) == 0
    assert "interactions: text 'said' holds the label 'click'" in capfd.readouterr().out


@pytest.mark.parametrize("predicate", ["positives: click > 5", "history: device == radio"])
def test_a_predicate_that_never_holds_is_warned_of(tmp_path: Path, predicate: str) -> None:
    key = predicate.partition(":")[0]
    changes = {SCHEMA: (f"{key}: click == 1", predicate)}
    (warning,) = check(write_folder(tmp_path, changes, LOG)).warnings
    assert f"'{predicate.partition(': ')[2]}' holds in no row" in warning


BAD = {
    "rating": "u4,i1,abc,7",
    "time": "u4,i1,1,1714550000000",
    "user": "u8,i1,1,7",
    "item": "u4,,1,7",
    "rows": "u4,i1",
}


@pytest.mark.parametrize("policy", ["skip", "quarantine"])
def test_bad_rows_are_counted_and_the_rest_is_as_without_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], policy: str
) -> None:
    plain = write_folder(tmp_path / "plain")
    folder = write_folder(tmp_path / "bad")
    bad = "".join(f"{row}\n" for row in BAD.values())
    written(MET, SMALL[MET] + bad)(folder)
    replaced(SCHEMA, "users:", f"on_bad_rows: {policy}\nusers:")(folder)
    assert main(["prepare", str(folder)]) == 0
    printed = capfd.readouterr().out
    counts = ", ".join(f"{column} 1" for column in BAD)
    assert f"5 bad rows were left out: {counts}" in printed
    assert contents(prepare(folder)) == contents(prepare(plain))
    file = folder / "quarantine/interactions.csv"
    assert file.exists() is (policy == "quarantine")
    if policy == "quarantine":
        told = pd.read_csv(file, keep_default_na=False)
        assert told["row"].tolist() == [10, 11, 12, 13, 14]
        assert told["column"].tolist() == ["rating", "time", "user", "item", ""]
        assert told["value"].tolist() == ["abc", "1714550000000", "u8", "", "u4,i1"]
    assert main(["check", str(folder)]) == 0
    assert f"(on_bad_rows: {policy})" in capfd.readouterr().out


def test_values_beyond_what_the_schema_reads_do_not_matter(tmp_path: Path) -> None:
    plain = contents(prepare(write_folder(tmp_path / "plain")))
    folder = write_folder(tmp_path / "odd")
    written(USERS, SMALL[USERS].replace("job\n", "job,x\n"))(folder)
    column_of("users", "x", ["1", "", "nan", "\x00"])(folder)
    assert contents(prepare(folder)) == plain
