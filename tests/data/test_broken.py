"""Values, labels, features and ids that cannot be used, told by file, row, column and value."""

from pathlib import Path

import pandas as pd
import pytest
from broken_folders import (
    Broken,
    Change,
    assert_told,
    column_of,
    in_parquet,
    replaced,
    written,
)
from small_data import LOG

MET, USERS, ITEMS, SCHEMA = "interactions.csv", "users.csv", "items.csv", "schema.yaml"
HEADER = "user,item,rating,time\n"
MATRIX = [(f"u{user}", f"i{item}") for user in (1, 2) for item in (1, 2, 3, 4)]


def met(ratings: str) -> str:
    """Interactions of two users with four items; "{n}" becomes the item's number."""
    rows = (f"{user},{item},{ratings.format(n=item[1])},{item[1]}\n" for user, item in MATRIX)
    return HEADER + "".join(rows)


def value(new: str, told: str, *, old: str = "u1,i2,3,2") -> Broken:
    """One value of the interactions replaced, in data row 3."""
    return Broken(changes=(replaced(MET, old, new),), told=f"{MET}: data row 3, column {told}")


def table(*changes: Change, told: str, checked: str | None = None) -> Broken:
    return Broken(changes=changes, told=told, checked=checked)


def log(old: str, new: str, told: str, *, file: str = MET, checked: str | None = None) -> Broken:
    """One place of the log of impressions replaced."""
    changes = (replaced(file, old, new),)
    return Broken(changes=changes, told=told, checked=checked, files=LOG)


NOT_SINGLE = "column 'rating' holds list<element: int64>, not single values"
NO_TIME = "is not a number of seconds or a date such as"
ONE_LABEL = ('like: {kind: binary, value: "rating >= 4"}, rating: {kind: ordinal}', "rating: {}")

VALUES = {
    "time in the future": value("u1,i2,3,4000000000", "'time': 4000000000 seconds lie in the fut"),
    "time in milliseconds": value("u1,i2,3,1714550000000", "'time': 1714550000000 is too large"),
    "time in nanoseconds": value("u1,i2,3,1714550000000000000", "'time': 1.71455e+18 is too"),
    "time far before 1970": value(
        "u1,i2,3,-999999999999999999", "'time': -999999999999999999 is too"
    ),
    "time not a number": value("u1,i2,3,nan", f"'time': 'nan' {NO_TIME}"),
    "time of another form": value("u1,i2,3,05/01/2024", f"'time': '05/01/2024' {NO_TIME}"),
    "date that never was": value("u1,i2,3,2024-02-30", f"'time': '2024-02-30' {NO_TIME}"),
    "rating infinite": value("u1,i2,inf,2", "'rating': 'inf' is not a number"),
    "rating overflows": value("u1,i2,1e999,2", "'rating': 'inf' is not a finite number below"),
    "rating beyond float32": value("u1,i2,-1e300,2", "'rating': '-1e+300' is not a finite number"),
    "rating NA": value("u1,i2,NA,2", "'rating': 'NA' is not a number"),
    "decimal comma in quotes": value('u1,i2,"3,5",2', "'rating': '3,5' is not a number"),
    "thousands separator": value('u1,i2,"1,000",2', "'rating': '1,000' is not a number"),
    "thousands with underscore": value("u1,i2,1_000,2", "'rating': '1_000' is not a number"),
    "rating in hexadecimal": value("u1,i2,0x10,2", "'rating': '0x10' is not a number"),
    "rating with a unit": value("u1,i2,3%,2", "'rating': '3%' is not a number"),
    "digits of another script": value("u1,i2,٣,2", "'rating': '٣' is not a number"),
    "blanks around an id": value("u1 ,i2,3,2", "'user': u1  is no id of users"),
    "an id of blanks": value(" ,i2,3,2", "'user':   is no id of users"),
    "an id in another case": value("U1,i2,3,2", "'user': U1 is no id of users"),
    "an id without its zeros": value("u01,i2,3,2", "'user': u01 is no id of users"),
}
LABELS = {
    "all labels missing": table(written(MET, met("")), told="the label 'like' is missing in all"),
    "labels missing in training": table(
        column_of("interactions", "rating", [1, *[""] * 3, 4, 2, "", 5, ""]),
        told="the label 'like' is missing in all training rows",
    ),
    "one class": table(written(MET, met("5")), told="the label 'like' is 1 in all"),
    "one level": table(
        written(MET, met("5")),
        replaced(SCHEMA, ONE_LABEL[0], "rating: ordinal"),
        told="an ordinal label needs two distinct values or more in training, it has 1",
        checked="the label 'rating' is 5 in all",
    ),
    "a boolean word as a label": table(
        column_of("interactions", "rating", ["yes", "no", *["yes"] * 7]),
        replaced(SCHEMA, ONE_LABEL[0], "rating: binary"),
        told=f"{MET}: data row 1, column 'rating': 'yes' is not a number",
    ),
    "a label of half a class": table(
        written(MET, met("0.{n}")),
        replaced(SCHEMA, ONE_LABEL[0], "rating: binary"),
        told=f"{MET}: data row 1, column 'rating': 0.1 is not allowed; a binary label is 0, 1",
    ),
    "a label that nothing fulfils": table(
        replaced(SCHEMA, "{kind: ordinal}", '{kind: ordinal, where: "rating > 9"}'),
        told="the label 'rating' is missing in all rows",
    ),
    "lists as a label": table(
        in_parquet("interactions", rating=[[1]] * 9), told=f"interactions.parquet: {NOT_SINGLE}"
    ),
    "dates as a label": table(
        in_parquet("interactions", rating=pd.to_datetime(["2020-01-01"] * 9)),
        told="interactions.parquet: column 'rating' holds timestamp",
    ),
    "a time of day": table(
        in_parquet("interactions", time=pd.to_timedelta(range(9), unit="s")),
        told="interactions.parquet: column 'time' holds duration",
    ),
}
FEATURES = {
    "infinite number in parquet": table(
        in_parquet("items", year=[1.0, 2.0, float("inf"), 4.0, 5.0, 6.0]),
        told="items.parquet: data row 3, column 'year': 'inf' is not a finite number",
    ),
    "lists where single values are needed": table(
        in_parquet("users", job=[["cook"]] * 4),
        told="users.parquet: column 'job' holds list<element: string>, not single values",
    ),
    "lists of lists": table(
        in_parquet("items", genres=[[["a"]]] * 6),
        replaced(SCHEMA, ', separator: "|"', ""),
        told="items.parquet: column 'genres' holds list<element: list<element: string>>",
    ),
    "single values where lists are needed": table(
        replaced(SCHEMA, ', separator: "|"', ""),
        told=f"{ITEMS}: column 'genres' holds large_string; lists of single values are needed",
    ),
    "wider vector": log(",1;0,good", ",1;0;2,good", "data row 2, column 'place': has 2 numbers"),
    "vector of words": log("1;0,good", "1;x,good", "data row 1, column 'place': 'x' is not a fin"),
    "vector beyond float32": log("1;0,good", "1;1e300,good", "column 'place': '1e300' is not a"),
    "vector with a gap": log("1;0,good", "1;,good", "data row 1, column 'place': '' is not a fin"),
    "no vector": Broken(
        changes=(column_of("interactions", "place", [""] * 10),),
        told="interactions: column 'place' holds no vector in any row",
        files=LOG,
    ),
    "vectors without a separator": log(
        ', separator: ";"', "", "column 'place' holds large_string; lists", file=SCHEMA
    ),
    "a price in words": log("3.5,phone", "cheap,phone", "column 'price': 'cheap' is not a number"),
}
IDS = {
    "numbers here, words there": table(
        column_of("users", "user_id", [1, 2, 3, 4]),
        told=f"{MET}: data row 1, column 'user': u2 is no id of users",
    ),
    "fractions as ids": table(
        in_parquet("users", user_id=[1.0, 2.0, 3.0, 4.0]),
        in_parquet("interactions", user=[1.5] * 9, item=[f"i{n % 6 + 1}" for n in range(9)]),
        told="interactions.parquet: data row 1, column 'user': 1.5 is no id of users",
    ),
    "lists as ids": table(
        in_parquet("users", user_id=[["u1"]] * 4), told="users.parquet: column 'user_id' holds list"
    ),
    "bytes as ids": table(
        in_parquet("users", user_id=[b"\xff", b"\xfe", b"\xfd", b"\xfc"]),
        told="users.parquet: column 'user_id' cannot be read: Invalid UTF8 payload",
    ),
    "ids that repeat in users": table(
        replaced(USERS, "u4,", "u2,"), told=f"{USERS}: data row 4, column 'user_id': id u2 is alre"
    ),
}
BROKEN = VALUES | LABELS | FEATURES | IDS


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_value_that_cannot_be_used_is_told_and_nothing_is_written(
    broken: Broken, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert_told(broken, tmp_path / "data", capfd)
