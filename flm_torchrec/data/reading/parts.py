"""The files of a table, read block by block: NAME.parquet, NAME.csv, or a folder NAME of parts."""

import csv
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from io import TextIOWrapper
from itertools import islice, pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from flm_torchrec.data.reading.csv_tables import csv_tables
from flm_torchrec.data.reading.location import Location
from flm_torchrec.errors import UserError

_ENDS = ("parquet", "csv")
_NOT_UTF8 = re.compile(r"Row #(\d+): .*invalid UTF8")


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows of a part."""

    data: pa.Table
    first_row: int  # of the part, from 0
    wrong: dict[int, str] = field(default_factory=dict)  # rows in which no columns are told apart


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a table."""

    location: Location
    file: str

    @property
    def path(self) -> Path | str:
        """What messages call it."""
        return self.location.path(self.file)

    @property
    def kind(self) -> str:
        """parquet, csv or txt."""
        return self.file.rpartition(".")[2]

    @contextmanager
    def readable(self) -> Iterator[BinaryIO]:
        """The open file; what its readers raise becomes an error that names it."""
        if self.location.size(self.file) == 0:
            raise UserError(f"{self.path}: is empty; a table with a header and data rows is needed")
        try:
            with self.location.open(self.file) as file:
                yield file
        except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
            what = " ".join(str(error).split())
            if self.kind == "csv" and (bad := _NOT_UTF8.search(what)):
                row = int(bad[1]) - 1  # the header counts there
                what = f"data row {row} is not UTF-8 text"
            raise self._unreadable(what) from error

    def _unreadable(self, what: str) -> UserError:
        return UserError(f"{self.path}: cannot be read as {self.kind}: {what}")

    def types(self) -> dict[str, pa.DataType]:
        """The columns; those of csv are texts, so that no id changes."""
        with self.readable() as file:
            if self.kind == "parquet":
                schema = parquet.read_schema(file)
                header, types = schema.names, schema.types
            elif self.kind == "txt":
                return {"text": pa.large_string()}
            else:
                with TextIOWrapper(file, "utf-8-sig", newline="") as text:
                    try:
                        header = next((row for row in csv.reader(text) if row), [])
                    except UnicodeDecodeError as error:  # in the header, or not far below
                        line = error.object[: error.start].count(b"\n") + 1
                        raise self._unreadable(f"line {line} is not UTF-8 text") from error
                types = [pa.large_string()] * len(header)
        if twice := sorted({name or "''" for name in header if header.count(name) > 1}):
            raise UserError(f"{self.path}: the header has {', '.join(twice)} more than once")
        return dict(zip(header, types, strict=True))

    def pieces(self, rows: int) -> "list[Piece]":
        """What can be read independently: row groups, consecutive ones until there are `rows`."""
        if self.kind != "parquet":
            return [Piece(self)]
        with self.readable() as file:
            data = parquet.ParquetFile(file).metadata
            sizes = [data.row_group(group).num_rows for group in range(data.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        bounds = [0]
        for group in range(len(sizes)):
            if starts[group + 1] - starts[bounds[-1]] >= rows or group == len(sizes) - 1:
                bounds.append(group + 1)
        return [Piece(self, tuple(range(a, b)), starts[a]) for a, b in pairwise(bounds)]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some row groups of a part, or a whole csv."""

    part: Part
    row_groups: tuple[int, ...] = ()
    first_row: int = 0

    def blocks(self, rows: int, columns: Collection[str] | None = None) -> Iterator[Block]:
        """Its rows, `rows` a block, of the `columns` or of all."""
        read = _READERS[self.part.kind]
        wrong: dict[int, str] = {}
        first = self.first_row
        for table in _sized(read(self, rows, columns, wrong), rows):
            stop = first + table.num_rows
            yield Block(table, first, {r - first: wrong[r] for r in wrong if first <= r < stop})
            first = stop


def _parquet_tables(
    piece: Piece, rows: int, columns: Collection[str] | None, wrong: dict[int, str]
) -> Iterator[pa.Table]:
    with piece.part.readable() as file:
        batches = parquet.ParquetFile(file, pre_buffer=False).iter_batches(
            rows, row_groups=piece.row_groups, columns=columns and list(columns), use_threads=False
        )
        for batch in batches:
            batch.validate(full=True)  # texts that are not UTF-8 break much later
            yield pa.Table.from_batches([batch])


def _txt_tables(
    piece: Piece, rows: int, columns: Collection[str] | None, wrong: dict[int, str]
) -> Iterator[pa.Table]:
    with piece.part.readable() as file, TextIOWrapper(file, "utf-8-sig") as lines:
        while block := list(islice(lines, rows)):
            texts = [line.strip() or None for line in block]
            yield pa.table({"text": pa.array(texts, pa.large_string())})


def _sized(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows, `rows` a table."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(part.num_rows for part in waiting) < rows:
            continue
        whole = pa.concat_tables(waiting)
        full = whole.num_rows - whole.num_rows % rows
        for first in range(0, full, rows):
            yield whole.slice(first, rows)
        waiting = [whole.slice(full)]
    if sum(part.num_rows for part in waiting):
        yield pa.concat_tables(waiting)


_READERS = {"parquet": _parquet_tables, "csv": csv_tables, "txt": _txt_tables}


def _ends(name: str) -> tuple[str, ...]:
    return (*_ENDS, "txt") if name == "corpus" else _ENDS


def parts_of(location: Location, name: str) -> list[Part]:
    """The files of a table: one, or those of its folder; of the corpus also texts, line by line."""
    ends = _ends(name)
    alone = [f"{name}.{end}" for end in ends if location.has(f"{name}.{end}")]
    parts = location.files(name)
    if bool(alone) + bool(parts) > 1 or len(alone) > 1:
        both = [*alone, *([f"the folder {name}"] if parts else [])]
        raise UserError(f"{location.url}: has both {' and '.join(both)}; one of them is needed")
    found = [Part(location, file) for file in alone or parts]
    if not found:
        raise UserError(
            f"{location.url}: has neither of {name}.parquet and {name}.csv; one of them is needed, "
            f"or a folder {name} of such parts"
        )
    for part in found:
        if part.kind not in ends:
            raise UserError(f"{part.path}: is no part; allowed are {', '.join(ends)}")
        if part.kind != found[0].kind:
            raise UserError(f"{part.path}: {found[0].file} is {found[0].kind}; parts are of a kind")
    return found


def is_there(location: Location, name: str) -> bool:
    """Whether the table is there."""
    return any(location.has(file) for file in (name, *(f"{name}.{end}" for end in _ends(name))))


def check_columns(parts: Sequence[Part], needed: Iterable[str] = ()) -> None:
    """Raise unless all parts have the same columns, the `needed` ones among them."""
    first = parts[0].types()
    for name in needed:
        if name not in first:
            raise no_column(parts[0].path, name, list(first))
    known = {name: (_sort_of(kind), parts[0].file) for name, kind in first.items()}
    for part in parts[1:]:
        types = part.types()
        for name in dict.fromkeys((*known, *types)):
            found = _sort_of(types[name]) if name in types else None
            expected, file = known.get(name, (None, parts[0].file))
            if found is None or expected is None or not _fit(found, expected):
                how = f"holds {found}" if found else "is missing"
                other = f"it holds {expected}" if expected else "there is none"
                raise UserError(f"{part.path}: column '{name}' {how}, but in {file} {other}")
            if expected.endswith("null"):
                known[name] = found, part.file


def no_column(path: Path | str, name: str, names: Collection[str]) -> UserError:
    """The error to raise where a column is missing."""
    near = get_close_matches(name, names, 1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    return UserError(f"{path}: no column '{name}'{hint}; it has {', '.join(names)}")


def _fit(one: str, other: str) -> bool:
    """Whether values of two sorts can stand in one column: nulls fit all, whole numbers others."""
    ends = {sort.removeprefix("lists of ") for sort in (one, other)}
    are_alike = one.startswith("lists of ") == other.startswith("lists of ")
    are_numbers = ends == {"whole numbers", "numbers"}
    if "null" in (one, other):
        return True
    return are_alike and (len(ends) == 1 or "null" in ends or are_numbers)


def _sort_of(kind: pa.DataType) -> str:
    """What a type holds, whatever its width."""
    if pa.types.is_dictionary(kind):
        return _sort_of(kind.value_type)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "whole numbers"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "numbers"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "texts"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"lists of {_sort_of(kind.value_type)}"
    return "times" if pa.types.is_temporal(kind) else str(kind)
