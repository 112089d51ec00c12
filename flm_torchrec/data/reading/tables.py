"""The tables of a data folder, column by column, with every problem told by file, row and column.

Rows are counted as a user counts them: "data row 1" is the first below the header.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.compute import pc
from flm_torchrec.data.reading.bad_rows import BadRows
from flm_torchrec.data.reading.location import Location
from flm_torchrec.data.reading.parts import Part, Piece, check_columns, no_column, parts_of
from flm_torchrec.data.reading.times import (
    beyond,
    in_future,
    seconds_of_dates,
    seconds_of_texts,
    unit_of,
)
from flm_torchrec.errors import UserError

CHUNK_ROWS = 500_000
NUMBER = r"^\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*$"
_WHOLE = r"^\s*[+-]?\d{1,18}\s*$"
_LARGEST = 2**63 - 1  # int64
_LARGEST_EXACT = 2.0**53  # float64
LARGEST_FLOAT32 = 3.4e38
_PLAIN_WHOLE = r"^(0|-?[1-9]\d{0,17})$"


def _is_text(column: pa.Array) -> bool:
    return pa.types.is_large_string(column.type)


def plain(column: pa.Array) -> pa.Array:
    """Values as int64, float64, large_string or a time; an empty text or NaN is null."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return plain(column.cast(kind.value_type))
    if pa.types.is_uint64(kind) and (pc.max(column).as_py() or 0) > _LARGEST:
        return column.cast(pa.large_string())
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return column.cast(pa.int64())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
        return pc.if_else(pc.is_nan(column), None, column)
    if pa.types.is_temporal(kind) or pa.types.is_nested(kind):
        return column
    column = column.cast(pa.large_string())
    return pc.if_else(pc.equal(column, ""), None, column)


def discrete_type(values: pa.Array) -> pa.DataType:
    """int64, or large_string where plain `values` are not all whole numbers."""
    if pa.types.is_floating(values.type):
        is_whole = pc.equal(values, pc.floor(values))
        is_exact = pc.less(pc.abs(values), _LARGEST_EXACT)
        is_int = pc.all(pc.and_(is_whole, is_exact)).as_py() is not False
    elif _is_text(values):
        is_int = bool(pc.all(pc.match_substring_regex(values, _PLAIN_WHOLE)).as_py())
    else:
        is_int = pa.types.is_integer(values.type)
    return pa.int64() if is_int else pa.large_string()


def to_numbers(values: pa.Array) -> pa.Array | None:
    """Plain `values` as int64, or as float64 where not all are whole; null where a text is no
    number, and None where they are neither texts nor numbers."""
    if not _is_text(values):
        is_number = pa.types.is_int64(values.type) or pa.types.is_float64(values.type)
        return values if is_number else None
    is_number = pc.match_substring_regex(values, NUMBER)
    values = pc.utf8_trim_whitespace(pc.if_else(is_number, values, None))
    values = pc.utf8_ltrim(values, "+")  # which Arrow reads as no number
    is_whole = pc.all(pc.match_substring_regex(values, _WHOLE)).as_py() is not False
    return values.cast(pa.int64() if is_whole else pa.float64())


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of a table and the file they came from."""

    path: Path | str
    data: pa.Table
    first_row: int = 0  # of the file
    bad: BadRows | None = None  # takes the rows that cannot be used; without it they are errors

    @property
    def num_rows(self) -> int:
        """The data rows."""
        return self.data.num_rows

    def problem(self, row: int, column: str, what: str) -> UserError:
        """The error to raise for one value; `row` counts from 0."""
        row += self.first_row + 1
        return UserError(f"{self.path}: data row {row}, column '{column}': {what}")

    def without(
        self, values: pa.Array, is_bad: pa.Array, column: str, what: Callable[[Any], str]
    ) -> pa.Array:
        """`values` with null where they are bad: `what` is wrong with such a value."""
        rows = np.flatnonzero(pc.fill_null(is_bad, False).to_numpy(zero_copy_only=False))
        if len(rows) == 0:
            return values
        shown = values.take(pa.array(rows if self.bad else rows[:1])).to_pylist()
        if self.bad is None:
            raise self.problem(int(rows[0]), column, what(shown[0]))
        told = ["" if value is None else str(value) for value in shown]
        reasons = map(what, shown)
        self.bad.add(column, zip(rows.tolist(), reasons, told, strict=True))
        return pc.if_else(is_bad, None, values)

    def column(self, name: str) -> pa.Array:
        """The column as int64, float64, large_string or a time; an empty text or NaN is null."""
        column = self.raw(name)
        if pa.types.is_nested(column.type):
            raise UserError(f"{self.path}: column '{name}' holds {column.type}, not single values")
        try:
            return plain(column)
        except pa.ArrowInvalid as error:
            raise UserError(f"{self.path}: column '{name}' cannot be read: {error}") from error

    def raw(self, name: str) -> pa.Array:
        """The column as it is in the file."""
        if name not in self.data.column_names:
            raise no_column(self.path, name, self.data.column_names)
        chunks = self.data.column(name)
        if len(chunks.chunks) == 1:
            return chunks.chunk(0)
        return pa.concat_arrays(chunks.chunks) if chunks.chunks else pa.array([], chunks.type)

    def discrete(self, name: str) -> pa.Array:
        """The column as int64 or large_string: what a vocabulary is made of."""
        column = self.column(name)
        return column.cast(discrete_type(column))

    def texts(self, name: str) -> pa.Array:
        """The column as large_string."""
        return self.discrete(name).cast(pa.large_string())

    def present(self, name: str) -> pa.Array:
        """The column without a gap: ids."""
        column = self.column(name)
        return self.without(column, column.is_null(), name, lambda _: "is empty; an id is needed")

    def ids(self, name: str) -> pa.Array:
        """The column as int64 or large_string without a gap."""
        column = self.present(name)
        return column.cast(discrete_type(column))

    def numbers(self, name: str) -> pa.Array:
        """The column as int64, or float64 where not all are whole; null = missing."""
        column = self.column(name)
        numbers = to_numbers(column)
        if numbers is None:
            raise UserError(f"{self.path}: column '{name}' holds {column.type}, not numbers")
        if numbers.null_count > column.null_count:
            is_bad = pc.and_(column.is_valid(), numbers.is_null())
            self.without(column, is_bad, name, lambda value: f"'{value}' is not a number")
        is_bad = pc.greater(pc.abs(numbers.cast(pa.float64(), safe=False)), LARGEST_FLOAT32)
        what = f"is not a finite number below {LARGEST_FLOAT32:g}"
        return self.without(numbers, is_bad, name, lambda v: f"'{v}' {what}")

    def times(self, name: str) -> NDArray[np.int64] | NDArray[np.float64]:
        """The column in seconds, every row there (0 in bad rows)."""
        column = self.column(name)
        is_missing = column.is_null()
        column = self.without(
            column, is_missing, name, lambda _: "is empty; a time in seconds is needed"
        )
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            seconds = seconds_of_dates(column)
        else:
            seconds = self._seconds(column, name)
        seconds = self.without(
            seconds, in_future(seconds), name, lambda v: f"{v:.0f} seconds lie in the future"
        )
        return pc.fill_null(seconds, 0).to_numpy(zero_copy_only=False)

    def _seconds(self, column: pa.Array, name: str) -> pa.Array:
        numbers = to_numbers(column) if _is_text(column) else None
        if numbers is not None and numbers.null_count > column.null_count:
            dates = seconds_of_texts(pc.if_else(numbers.is_valid(), None, column))
            seconds = pc.coalesce(numbers.cast(pa.float64(), safe=False), dates)
            is_bad = pc.and_(column.is_valid(), seconds.is_null())
            what = "is not a number of seconds or a date such as 2024-05-01T12:30:00"
            self.without(column, is_bad, name, lambda value: f"'{value}' {what}")
        else:
            seconds = self.numbers(name)
        return self.without(
            seconds,
            beyond(seconds),
            name,
            lambda v: f"{v} is too large for seconds since 1970, it looks like {unit_of(v)}",
        )


def piece_tables(
    piece: Piece,
    *,
    rows: int = CHUNK_ROWS,
    columns: Collection[str] | None = None,
    collect: bool = False,
) -> Iterator[Table]:
    """The tables of a piece, `rows` each; `collect` gathers bad rows instead of raising."""
    for block in piece.blocks(rows, columns):
        bad = BadRows() if collect else None
        for row, what in sorted(block.wrong.items()):
            if bad is None:
                number = block.first_row + row + 1
                raise UserError(f"{piece.part.path}: data row {number}: {what}")
            bad.add("", [(row, what.partition(": ")[0], what.partition(": ")[2])])
        yield Table(piece.part.path, block.data, block.first_row, bad)


def read_chunks(
    folder: Path | str | Location, name: str, rows: int = CHUNK_ROWS
) -> Iterator[Table]:
    """A table of a data folder, `rows` at a time; 0 data rows are an error."""
    parts = parts_of(Location.of(folder), name)
    check_columns(parts)
    is_empty = True
    for part in parts:
        for piece in part.pieces(rows):
            for table in piece_tables(piece, rows=rows):
                is_empty = False
                yield table
    if is_empty:
        raise UserError(f"{parts[0].path}: has no data rows")


def read_table(folder: Path | str | Location, name: str) -> Table:
    """Read a table of a data folder, whose rows count on from part to part."""
    location = Location.of(folder)
    return _whole(list(read_chunks(location, name)), location.path(name))


def read_file(path: Path) -> Table:
    """Read one file as a table, wherever it lies; 0 data rows are an error."""
    if not path.is_file() or path.suffix not in (".csv", ".parquet"):
        what = "is neither" if path.is_file() else "is not there"
        raise UserError(f"{path}: {what}; allowed: a .csv or .parquet file")
    part = Part(Location.of(path.parent), path.name)
    pieces = part.pieces(CHUNK_ROWS)
    chunks = [table for piece in pieces for table in piece_tables(piece)]
    if not chunks:
        raise UserError(f"{path}: has no data rows")
    return _whole(chunks, path)


def _whole(chunks: list[Table], path: Path | str) -> Table:
    """One table of all chunks; where they are of several files, `path` is what it is called."""
    try:
        data = pa.concat_tables([chunk.data for chunk in chunks], promote_options="permissive")
    except pa.ArrowException as error:
        raise UserError(f"{path}: its parts are of different types: {error}") from error
    is_one = all(chunk.path == chunks[0].path for chunk in chunks)
    return Table(chunks[0].path if is_one else path, data)
