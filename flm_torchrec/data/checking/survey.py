"""What is counted of a table while its chunks pass, and what is wrong in it, all of it."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.checking.findings import Findings, percent
from flm_torchrec.data.checking.profile import plain_name
from flm_torchrec.data.checking.uses import Uses
from flm_torchrec.data.compute import pc
from flm_torchrec.data.preparing.vocabulary import hashed
from flm_torchrec.data.reading.bad_rows import BadRows
from flm_torchrec.data.reading.location import Location
from flm_torchrec.data.reading.parts import check_columns, parts_of
from flm_torchrec.data.reading.tables import CHUNK_ROWS, Table, piece_tables
from flm_torchrec.errors import UserError

T = TypeVar("T")
# Types with values that stand for a missing one: "" and NaN.
_MAY_HAVE_GAPS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_floating)


@dataclass(slots=True)
class Problem:
    """The first of a kind, and how many rows have it; 0 where it is none of rows."""

    first: str
    rows: int = 0

    def __str__(self) -> str:
        more = self.rows - 1
        rows = "is 1 more row" if more == 1 else f"are {more:,} more rows"
        return f"{self.first}; so {rows}" if more > 0 else self.first


@dataclass(slots=True)
class Survey:
    """A table so far. Problems are kept by what they concern."""

    name: str
    rows: int = 0
    missing: dict[str, int] = field(default_factory=dict)  # by column
    values: dict[str, NDArray[np.uint64]] = field(default_factory=dict)  # hashes of the distinct
    problems: dict[str, Problem] = field(default_factory=dict)
    warnings: dict[str, str] = field(default_factory=dict)
    is_there: dict[tuple[str, str], bool] = field(default_factory=dict)  # by use: in any row
    broken: set[int] = field(default_factory=set)  # rows of this chunk with a problem
    num_broken: int = 0  # such rows of the chunks before

    def attempt(self, what: str, read: Callable[[], T]) -> T | None:
        """The result of `read`, or None and its problem is kept as that of `what`."""
        try:
            return read()
        except UserError as error:
            self.problems.setdefault(what, Problem(str(error)))
            return None

    def read(self, chunk: Table, what: str, read: Callable[[Table], T]) -> T | None:
        """What `read` makes of a chunk; the rows that are bad for it are kept as broken."""
        bad = BadRows()
        result = self.attempt(what, lambda: read(replace(chunk, bad=bad)))
        known = chunk.bad.found if chunk.bad is not None else {}
        rows = [row for row in bad.found if row not in known]
        if rows:
            column, reason, _ = bad.found[min(rows)]
            self.tell(what, chunk, rows, column, reason)
        return result

    def read_all(self, chunk: Table, uses: Uses) -> dict[tuple[str, str], pa.Array]:
        """What each use reads of a chunk; a use that fails is left out."""
        columns = {use: self.read(chunk, use[1], read) for use, read in uses.items()}
        found = {use: column for use, column in columns.items() if column is not None}
        for use, column in found.items():
            is_there = column if use[0] == "predicate" else column.is_valid()
            self.is_there[use] = self.is_there.get(use, False) or bool(pc.any(is_there).as_py())
        return found

    def tell(
        self, what: str, chunk: Table, rows: Collection[int], column: str, reason: str
    ) -> None:
        """Keep a problem of some rows; `reason` is what is wrong with the first of them."""
        problem = self.problems.get(what)
        if problem is None:
            told = str(chunk.problem(int(min(rows)), column, reason))
            problem = self.problems[what] = Problem(told)
        problem.rows += len(rows)
        self.broken |= set(rows)

    def _note_wrong(self, chunk: Table) -> None:
        """Keep the rows that have too many or too few values."""
        self.broken = set() if chunk.bad is None else set(chunk.bad.found)
        for row, (_, reason, text) in chunk.bad.found.items() if chunk.bad is not None else ():
            number = chunk.first_row + row + 1
            told = f"{chunk.path}: data row {number}: {reason}: {text}"
            self.problems.setdefault("row", Problem(told)).rows += 1

    def chunks(self, location: Location, counted: Collection[str]) -> Iterator[Table]:
        """The chunks of the table, each counted when it has passed, without those of parts that
        cannot be read.

        `counted` names the columns whose distinct values are counted.
        """
        parts = self.attempt("", lambda: parts_of(location, self.name)) or []
        if parts:
            self.attempt("columns", lambda: check_columns(parts))
        for part in parts if "columns" not in self.problems else ():
            pieces = self.attempt(part.file, partial(part.pieces, CHUNK_ROWS)) or []
            for piece in pieces:
                tables = piece_tables(piece, collect=True)
                following = partial(next, tables, None)
                while (table := self.attempt(part.file, following)) is not None:
                    self._note_wrong(table)
                    yield table
                    self.rows += table.num_rows
                    self.num_broken += len(self.broken)
                    for name in table.data.column_names:
                        self._count(table, name, name in counted)
        if parts and not self.rows and not self.problems:
            self.problems[""] = Problem(f"{parts[0].path}: has no data rows")

    def _count(self, chunk: Table, name: str, is_counted: bool) -> None:
        raw = chunk.data.column(name)
        has_gaps = any(check(raw.type) for check in _MAY_HAVE_GAPS)
        column = self.attempt(name, lambda: chunk.column(name)) if has_gaps or is_counted else raw
        if column is None:
            return
        self.missing[name] = self.missing.get(name, 0) + column.null_count
        if is_counted:
            known = self.values.get(name, np.zeros(0, np.uint64))
            self.values[name] = np.union1d(known, hashed(pc.unique(column.drop_null())))

    def check_spelling(self, column: str, ids: pa.Array) -> None:
        """Warn of ids with blanks around them and of ids that differ only by case."""
        if pa.types.is_integer(ids.type):
            return
        distinct = pc.unique(ids.drop_null())
        place = pc.index(pc.match_substring_regex(distinct, r"^\s|\s$"), True).as_py()
        where = f"{self.name}: column '{column}'"
        if place >= 0:
            what = f"{where}: ids have blanks around them, as '{distinct[place]}' has"
            self.warnings.setdefault(f"blanks {column}", what)
        lower = pc.utf8_lower(distinct)
        counts = pc.value_counts(lower)
        twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        if len(twice):
            one, other = distinct.filter(pc.equal(lower, twice[0])).to_pylist()[:2]
            what = f"{where}: the ids {one} and {other} differ only by case"
            self.warnings.setdefault(f"case {column}", what)

    def findings(self, used: Collection[str], on_bad_rows: str = "error") -> Findings:
        """What was found; `used` are the columns that the schema reads. Where the schema says what
        becomes of bad rows, they are no problem until they are more than half."""
        found = Findings([f"rows: {self.rows:,}"])
        if self.values:
            distinct = (f"{name} {len(values):,}" for name, values in self.values.items())
            found.facts.append(f"distinct values: {', '.join(distinct)}")
        gaps = [f"{name} {percent(n, self.rows)}" for name, n in self.missing.items() if n]
        found.facts.append(f"missing values: {', '.join(gaps) or 'none'}")
        if unused := [name for name in self.missing if name not in used]:
            found.facts.append(f"columns that the schema does not use: {', '.join(unused)}")
        is_soft = on_bad_rows != "error"
        softened = dict.fromkeys(str(p) for p in self.problems.values() if is_soft and p.rows)
        found.problems += dict.fromkeys(
            str(p) for p in self.problems.values() if not (is_soft and p.rows)
        )
        if is_soft and 2 * self.num_broken > self.rows:
            found.problems.append(
                f"{self.name}: {percent(self.num_broken, self.rows)} of the data rows cannot be "
                "used, more than half"
            )
        found.warnings += [f"{line} (on_bad_rows: {on_bad_rows})" for line in softened]
        found.warnings += [*self.warnings.values(), *self._similar_names()]
        for kind, name in (use for use, is_there in self.is_there.items() if not is_there):
            if kind == "vector":
                found.problems.append(f"{self.name}: column '{name}' holds no vector in any row")
            elif (kind, name) == ("text", "corpus"):
                found.problems.append(f"{self.name}: all rows are empty; texts are needed")
            elif kind == "predicate":
                found.warnings.append(f"{self.name}: '{name}' holds in no row")
        return found

    def _similar_names(self) -> Iterator[str]:
        seen: dict[str, str] = {}
        for name in self.missing:
            other = seen.setdefault(plain_name(name), name)
            if other != name:
                yield f"{self.name}: columns '{other}' and '{name}' have nearly the same name"
