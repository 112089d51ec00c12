"""CSV files as tables of texts, with what is wrong in their rows."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv

from flm_torchrec.data.compute import pc
from flm_torchrec.errors import UserError

if TYPE_CHECKING:
    from flm_torchrec.data.reading.parts import Part, Piece

_Options = tuple[arrow_csv.ReadOptions, arrow_csv.ParseOptions, arrow_csv.ConvertOptions]
_CSV_BYTES = 8 << 20  # of a block; no row may be longer


def csv_tables(
    piece: "Piece", rows: int, columns: Collection[str] | None, wrong: dict[int, str]
) -> Iterator[pa.Table]:
    """Tables with rows of nulls where a row has another number of values, told in `wrong`."""
    part, is_wrong = piece.part, False

    def skip(row: arrow_csv.InvalidRow) -> Literal["skip"]:
        nonlocal is_wrong
        is_wrong = True
        return "skip"

    types = part.types()
    schema = pa.schema({name: types[name] for name in columns or types})
    row = 0
    with part.readable() as file:
        for batch in _batches(file, _csv_options(schema, skip)):
            if is_wrong and not wrong:
                wrong |= _wrong_rows(part, schema)
            table = _with_gaps(pa.Table.from_batches([batch]), wrong, row)
            _check_quotes(part.path, table, row, len(types))
            yield table
            row += table.num_rows
    if is_wrong and not wrong:
        wrong |= _wrong_rows(part, schema)
    if wrong and max(wrong) >= row:
        yield _with_gaps(schema.empty_table(), wrong, row)


def _batches(file: BinaryIO, options: _Options) -> Iterator[pa.RecordBatch]:
    try:
        yield from arrow_csv.open_csv(file, *options)
    except pa.ArrowInvalid as error:
        if "Empty CSV file" not in str(error):  # as is a header without a newline
            raise


def _csv_options(
    schema: pa.Schema, skip: Callable[[arrow_csv.InvalidRow], Literal["skip"]]
) -> _Options:
    """Every column as text; quotes, newlines, CRLF and a BOM just work."""
    return (
        arrow_csv.ReadOptions(use_threads=False, block_size=_CSV_BYTES),
        arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
        arrow_csv.ConvertOptions(
            column_types=schema,
            include_columns=schema.names,
            null_values=[""],
            strings_can_be_null=True,
        ),
    )


def _wrong_rows(part: "Part", schema: pa.Schema) -> dict[int, str]:
    """Where the wrong rows are, which only a reader that is not incremental tells."""
    found: dict[int, str] = {}
    swallowed: list[tuple[int, int]] = []  # data row, rows in it

    def remember(row: arrow_csv.InvalidRow) -> Literal["skip"]:
        assert row.number is not None  # as it is with several threads
        if inner := _whole_rows(row.text, row.expected_columns):
            swallowed.append((row.number - 1, inner))
        found[row.number - 2] = (
            f"{row.actual_columns} values where the header has {row.expected_columns}: "
            f"{row.text[:80].replace(chr(10), '|')}"
        )
        return "skip"

    one = pa.schema([schema.field(0)])
    with part.readable() as file:
        arrow_csv.read_csv(file, *_csv_options(one, remember))
    for row, inner in swallowed:
        raise _open_quote(part.path, f"data row {row}", inner)
    return found


def _with_gaps(table: pa.Table, wrong: Collection[int], first: int) -> pa.Table:
    """`table`, whose first row is row `first`, with a row of nulls in each place in `wrong`."""
    total, places = table.num_rows, []
    for place in sorted(row - first for row in wrong if row >= first):
        if place > total:
            break
        places.append(place)
        total += 1
    if not places:
        return table
    is_gap = np.zeros(total, bool)
    is_gap[places] = True
    return table.take(pa.array(np.cumsum(~is_gap) - 1, mask=is_gap))


def _check_quotes(path: Path | str, table: pa.Table, first_row: int, num_columns: int) -> None:
    """Raise UserError where a value holds whole rows."""
    line = rf"\n[^,\n]*(?:,[^,\n]*){{{num_columns - 1}}}\r?\n"
    for name in table.column_names:
        values = table[name].combine_chunks()
        suspects = pc.fill_null(pc.match_substring_regex(values, line), False)
        for row in np.flatnonzero(suspects.to_numpy(zero_copy_only=False)).tolist():
            if inner := _whole_rows(values[row].as_py(), num_columns):
                raise _open_quote(path, f"data row {first_row + row + 1}, column '{name}'", inner)


def _whole_rows(text: str, num_columns: int) -> int:
    """How many rows of the table a text holds within it: then a quote before them was not closed.

    A text may have lines of its own. That all of them have as many commas as a row needs is taken
    for no text's, with two columns where there are three lines or more.
    """
    commas = num_columns - 1
    inner = [line for line in text.split("\n")[1:-1] if line.strip()]
    is_table = commas > 0 and all(line.count(",") == commas for line in inner)
    return len(inner) if is_table and len(inner) >= (3 if commas == 1 else 1) else 0


def _open_quote(path: Path | str, where: str, num_rows: int) -> UserError:
    return UserError(
        f"{path}: {where}: holds {num_rows} whole rows; allowed: a value whose quotes are closed, "
        "and doubled inside it"
    )
