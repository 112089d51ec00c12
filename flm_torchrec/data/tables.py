"""The tables of a data folder, column by column, with every problem told by file, row and column.

Rows are counted as a user counts them: "data row 1" is the first below the header.
"""

import csv
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from flm_torchrec.data.compute import pc
from flm_torchrec.errors import UserError

_NUMBER = r"^\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*$"
_WHOLE = r"^\s*[+-]?\d{1,18}\s*$"
_LARGEST = 2**63 - 1  # int64
_LARGEST_EXACT = 2.0**53  # float64
_PLAIN_WHOLE = r"^(0|-?[1-9]\d{0,17})$"


def _first(mask: pa.Array) -> int | None:
    """The first row where `mask` is true."""
    row = pc.index(mask, True).as_py()
    return None if row < 0 else row


def _is_text(column: pa.Array) -> bool:
    return pa.types.is_large_string(column.type)


@dataclass(frozen=True, slots=True)
class Table:
    """A table and the file it came from."""

    path: Path
    data: pa.Table

    @property
    def num_rows(self) -> int:
        """The data rows."""
        return self.data.num_rows

    def problem(self, row: int, column: str, what: str) -> UserError:
        """The error to raise for one value; `row` counts from 0."""
        return UserError(f"{self.path}: data row {row + 1}, column '{column}': {what}")

    def column(self, name: str) -> pa.Array:
        """The column as int64, float64, large_string or a time; an empty text or NaN is null."""
        names = self.data.column_names
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise UserError(f"{self.path}: no column '{name}'{hint}; it has {', '.join(names)}")
        chunks = self.data.column(name)
        if pa.types.is_dictionary(chunks.type):
            chunks = chunks.cast(chunks.type.value_type)
        if pa.types.is_uint64(chunks.type) and (pc.max(chunks).as_py() or 0) > _LARGEST:
            chunks = chunks.cast(pa.large_string())
        elif pa.types.is_integer(chunks.type) or pa.types.is_boolean(chunks.type):
            chunks = chunks.cast(pa.int64())
        elif pa.types.is_floating(chunks.type) or pa.types.is_decimal(chunks.type):
            chunks = chunks.cast(pa.float64())
            chunks = pc.if_else(pc.is_nan(chunks), None, chunks)
        elif pa.types.is_nested(chunks.type):
            raise UserError(f"{self.path}: column '{name}' holds {chunks.type}, not single values")
        elif not pa.types.is_temporal(chunks.type):
            chunks = chunks.cast(pa.large_string())
            chunks = pc.if_else(pc.equal(chunks, ""), None, chunks)
        return pa.concat_arrays(chunks.chunks) if chunks.chunks else pa.array([], chunks.type)

    def discrete(self, name: str) -> pa.Array:
        """The column as int64 or large_string: what a vocabulary is made of."""
        column = self.column(name)
        if pa.types.is_floating(column.type):
            is_whole = pc.equal(column, pc.floor(column))
            is_exact = pc.less(pc.abs(column), _LARGEST_EXACT)
            whole = pc.all(pc.and_(is_whole, is_exact)).as_py() is not False
            column = column.cast(pa.int64() if whole else pa.large_string())
        if _is_text(column) and pc.all(pc.match_substring_regex(column, _PLAIN_WHOLE)).as_py():
            column = column.cast(pa.int64())
        return column if pa.types.is_int64(column.type) else column.cast(pa.large_string())

    def texts(self, name: str) -> pa.Array:
        """The column as large_string."""
        return self.discrete(name).cast(pa.large_string())

    def ids(self, name: str) -> pa.Array:
        """The column as int64 or large_string without a gap."""
        column = self.discrete(name)
        row = _first(column.is_null())
        if row is not None:
            raise self.problem(row, name, "is empty; an id is needed")
        return column

    def numbers(self, name: str) -> pa.Array:
        """The column as int64, or float64 where not all are whole; null = missing."""
        column = self.column(name)
        if _is_text(column):
            bad = _first(pc.invert(pc.match_substring_regex(column, _NUMBER)))
            if bad is not None:
                raise self.problem(bad, name, f"'{column[bad]}' is not a number")
            whole = pc.all(pc.match_substring_regex(column, _WHOLE)).as_py()
            trimmed = pc.utf8_trim_whitespace(column)
            column = trimmed.cast(pa.int64() if whole else pa.float64())
        if not (pa.types.is_int64(column.type) or pa.types.is_float64(column.type)):
            raise UserError(f"{self.path}: column '{name}' holds {column.type}, not numbers")
        bad = _first(pc.invert(pc.is_finite(column)))
        if bad is not None:
            raise self.problem(bad, name, f"'{column[bad]}' is not a finite number")
        return column

    def times(self, name: str) -> NDArray[np.int64] | NDArray[np.float64]:
        """The column in seconds, every row there."""
        column = self.column(name)
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            micros = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
            column = pc.divide(micros.cast(pa.float64()), 1e6)
        else:
            column = self.numbers(name)
        row = _first(column.is_null())
        if row is not None:
            raise self.problem(row, name, "is empty; a time in seconds is needed")
        return column.to_numpy()


def _read_csv(path: Path) -> pa.Table:
    """Every column as text, so that no id changes; quotes, newlines, CRLF and a BOM just work."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise UserError(f"{path}: the header has {', '.join(sorted(twice))} more than once")
    wrong: list[arrow_csv.InvalidRow] = []

    def remember(row: arrow_csv.InvalidRow) -> Literal["skip"]:
        wrong.append(row)
        return "skip"

    table = arrow_csv.read_csv(
        path,
        read_options=arrow_csv.ReadOptions(use_threads=False),
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=remember),
        convert_options=arrow_csv.ConvertOptions(
            column_types={name: pa.large_string() for name in header},
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    if wrong:
        row = wrong[0]
        assert row.number is not None  # as it is with several threads
        raise UserError(
            f"{path}: data row {row.number - 1}: {row.actual_columns} values where the header has "
            f"{row.expected_columns}: {row.text[:80]}"
        )
    return table


def table_file(folder: Path, name: str) -> Path:
    """Path of `name`.parquet or `name`.csv of a data folder, whichever is there."""
    paths = [path for path in (folder / f"{name}.parquet", folder / f"{name}.csv") if path.exists()]
    if len(paths) != 1:
        found = "has both" if paths else "has neither of"
        raise UserError(f"{folder}: {found} {name}.parquet and {name}.csv; one of them is needed")
    return paths[0]


def read_table(folder: Path, name: str) -> Table:
    """Read a table of a data folder; 0 data rows are an error."""
    path = table_file(folder, name)
    if path.stat().st_size == 0:
        raise UserError(f"{path}: is empty; a table with a header and data rows is needed")
    try:
        data = _read_csv(path) if path.suffix == ".csv" else parquet.read_table(path)
    except (pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as {path.suffix[1:]}: {error}") from error
    if data.num_rows == 0:
        raise UserError(f"{path}: has no data rows")
    return Table(path, data)
