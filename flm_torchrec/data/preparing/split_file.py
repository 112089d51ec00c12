"""The split in a file beside the data, which decides: ties in time are frequent, and whoever
compares with us must hold out the same interactions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from flm_torchrec.data.compute import pc
from flm_torchrec.data.dataset import PART_NAMES
from flm_torchrec.data.preparing.columns import Discrete
from flm_torchrec.data.preparing.split import SplitKeys
from flm_torchrec.data.preparing.vocabulary import hashed
from flm_torchrec.data.reading.tables import Table, read_chunks
from flm_torchrec.data.schema import Split, SplitKind
from flm_torchrec.errors import UserError

_ROWS = 1_000_000  # of a block
TIME = "timestamp"
_KEY = b"flm_torchrec split"  # of the file's metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a split file says of each interaction, besides its part; in the source's order."""

    source_row: NDArray[np.int64]
    # Of user_id and item_id, as far as there are any; the values may be their hashes, uint64.
    ids: Mapping[str, Discrete]
    time: NDArray[np.float64] | None
    by_user: NDArray[np.int64] | None  # (n,) the order by user and time

    def blocks(self) -> Iterator[pa.Table]:
        """The facts as tables, block by block."""
        time = self.time_type()
        for first in range(0, len(self.source_row), _ROWS):
            yield self.block(first, first + _ROWS, time)

    def time_type(self) -> type:
        """Of the times: whole numbers where all are."""
        is_whole = self.time is not None and bool((self.time == np.floor(self.time)).all())
        return np.int64 if is_whole else np.float64

    def block(self, first: int, stop: int, time: type) -> pa.Table:
        """The facts of some rows."""
        rows = slice(first, stop)
        columns = {"row": pa.array(self.source_row[rows])}
        for name, ids in self.ids.items():
            columns[name] = ids.values.take(pa.array(ids.codes[rows]))
        if self.time is not None:
            columns[TIME] = pa.array(self.time[rows].astype(time))
        return pa.table(columns)

    def keys(self) -> SplitKeys:
        """What a split may go by."""
        codes = {name: ids.codes for name, ids in self.ids.items()}
        return SplitKeys(
            num_rows=len(self.source_row),
            user=codes.get("user_id"),
            item=codes.get("item_id"),
            time=self.time,
            by_user=self.by_user,
        )


def split_file(folder: Path, kind: SplitKind) -> Path:
    """Where the split of a data folder is written."""
    return folder / "splits" / f"{kind}.parquet"


def _rule(split: Split) -> bytes:
    """What of a rule decides, as the file keeps it."""
    by_kind = {"leave_one_out": set(), "time": {"validation", "test"}}
    keys = by_kind.get(split.kind, {"validation", "test", "seed"}) | {"kind"}
    return split.model_dump_json(include=keys).encode()


def write_split(file: Path, part: NDArray[np.int8], facts: Facts, split: Split) -> None:
    """Write `part` in the source's order, beside the facts of each row, and the rule it is by."""
    names, first, writer = pa.array(PART_NAMES), 0, None
    try:
        for block in facts.blocks():
            stop = first + block.num_rows
            table = block.append_column("part", names.take(pa.array(part[first:stop])))
            table = table.replace_schema_metadata({_KEY: _rule(split)})
            writer = writer or parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
            first = stop
    finally:
        if writer is not None:
            writer.close()


def read_split(file: Path, split: Split, facts: Facts) -> NDArray[np.int8]:
    """(n,) part of each interaction in the source's order; the file must agree with all facts, and
    with the rule if it tells one."""
    parts, num_rows, time = [], 0, facts.time_type()
    for table in read_chunks(file.parent, file.stem, _ROWS):
        stop = num_rows + table.num_rows
        if stop <= len(facts.source_row):
            _compare(table, facts.block(num_rows, stop, time))
            parts.append(_parts(table))
        num_rows = stop
    told = (parquet.read_schema(file).metadata or {}).get(_KEY)
    if told not in (None, _rule(split)):
        raise UserError(
            f"{file}: is split by {told.decode()}, schema.yaml says {_rule(split).decode()}; "
            "remove the file to split anew, or change the schema back"
        )
    if num_rows != len(facts.source_row):
        what = f"it has {num_rows} rows, the interactions {len(facts.source_row)}"
        raise _misfit(file, what)
    part = np.concatenate(parts)
    _check_order(file, split.kind, facts.keys(), part)
    return part


def _compare(table: Table, block: pa.Table) -> None:
    for name in block.column_names:
        expected = block[name].combine_chunks()
        shown = found = pa.array(table.times(name)) if name == TIME else table.ids(name)
        is_hashed = pa.types.is_uint64(expected.type)
        if is_hashed:
            found = pa.array(hashed(found))
        elif found.type != expected.type:
            kind = pa.float64() if name == TIME else pa.large_string()
            found, expected = found.cast(kind), expected.cast(kind)
        place = pc.index(pc.equal(found, expected), False).as_py()
        if place >= 0:
            where = f"data row {table.first_row + place + 1}, column '{name}'"
            other = "another" if is_hashed else expected[place]
            what = f"{where}: {shown[place]}, but the interaction has {other}"
            raise _misfit(table.path, what)


def _parts(table: Table) -> NDArray[np.int8]:
    names = table.texts("part")
    part = pc.index_in(names, pa.array(PART_NAMES, pa.large_string()))
    allowed = f"is not allowed; it is one of {', '.join(PART_NAMES)}"
    table.without(names, part.is_null(), "part", lambda name: f"'{name}' {allowed}")
    return part.to_numpy().astype(np.int8)


def _misfit(path: Path | str, what: str) -> UserError:
    return UserError(
        f"{path}: does not fit the interactions: {what}; remove the file to split anew"
    )


def _check_order(file: Path, kind: SplitKind, keys: SplitKeys, part: NDArray[np.int8]) -> None:
    """Refuse a split by time that trains on a later interaction than one it holds out."""
    if kind not in ("leave_one_out", "time"):
        return
    is_by_user = kind == "leave_one_out"
    time = np.arange(keys.num_rows) if keys.time is None else keys.time
    user = np.zeros(keys.num_rows, np.int32)
    if is_by_user:
        assert keys.user is not None
        user = keys.user
    order = np.lexsort((part, time, user))
    is_wrong = (np.diff(user[order]) == 0) & (np.diff(part[order]) < 0)
    if is_wrong.any():
        first, second = order[int(np.argmax(is_wrong)) :][:2]
        whose = "the same user's later interaction" if is_by_user else "the later interaction"
        raise _misfit(
            file,
            f"data row {first + 1} is {PART_NAMES[part[first]]}, but {whose} in data row "
            f"{second + 1} is {PART_NAMES[part[second]]}",
        )
