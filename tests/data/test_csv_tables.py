"""Quotes in CSV files: lines of a text, and rows that an open quote would swallow."""

import pytest
from small_data import write_folder

from flm_torchrec.data.checking.check import check
from flm_torchrec.data.prepare import prepare
from flm_torchrec.errors import UserError

ITEMS = [f"i{n},title {n},{1990 + n},a" for n in range(7, 12)]


def with_items(folder, *rows: str):
    write_folder(folder)
    path = folder / "items.csv"
    path.write_text(path.read_text() + "".join(f"{row}\n" for row in rows))
    return folder


def test_rows_that_an_open_quote_swallows_are_told(tmp_path):
    opened = [*ITEMS[:1], 'i20,"Great,1990,a', *ITEMS[1:4], 'i21,Good",1991,b', *ITEMS[4:]]
    folder = with_items(tmp_path, *opened)
    told = r"items\.csv: data row 8, column 'title': holds 3 whole rows; allowed: a value whose"
    with pytest.raises(UserError, match=told):
        prepare(folder)
    assert any("holds 3 whole rows" in problem for problem in check(folder).problems)


def test_rows_that_a_row_of_too_many_values_swallows_are_no_single_bad_row(tmp_path):
    folder = write_folder(tmp_path)
    first, *rows = (folder / "interactions.csv").read_text().splitlines()
    rows = [rows[0], 'u1,i2,3,2,more,"a', *rows[1:3], "", *rows[3:]]
    (folder / "interactions.csv").write_text("\n".join([first, *rows]) + "\n")
    schema = (folder / "schema.yaml").read_text()
    (folder / "schema.yaml").write_text(f"on_bad_rows: skip\n{schema}")
    with pytest.raises(UserError, match=r"interactions\.csv: data row 2: holds 7 whole rows"):
        prepare(folder)
    assert any("data row 2: holds 7 whole rows" in problem for problem in check(folder).problems)


def test_a_text_of_several_lines_stays_a_text(tmp_path):
    folder = with_items(tmp_path, 'i20,"One, two\nthree, four\nfive, six\n",1990,a')
    assert "One, two\nthree, four" in prepare(folder).items.text["title"][-1]
