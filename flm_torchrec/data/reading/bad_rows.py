"""Rows of the interactions whose values cannot be used, where the schema goes on without them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv, parquet

from flm_torchrec.files import atomic_file

_FILE = "bad rows.parquet"
# What the quarantine file tells of each row; rows count from 1 within their file.
TOLD = pa.schema(
    {
        "file": pa.string(),
        "row": pa.int64(),
        "column": pa.string(),
        "reason": pa.string(),
        "value": pa.string(),
    }
)


@dataclass(slots=True)
class BadRows:
    """The bad rows of a chunk, each with the first thing that is wrong in it."""

    found: dict[int, tuple[str, str, str]] = field(default_factory=dict)  # column, reason, value

    def add(self, column: str, problems: Iterable[tuple[int, str, str]]) -> None:
        """Add (row, reason, value) of a column."""
        for row, reason, value in problems:
            self.found.setdefault(row, (column, reason, value))

    def kept(self, num_rows: int) -> NDArray[np.int32]:
        """The rows that are left."""
        is_kept = np.ones(num_rows, bool)
        is_kept[list(self.found)] = False
        return np.flatnonzero(is_kept).astype(np.int32)

    def batch(self, file: str, first_row: int) -> pa.RecordBatch:
        """What is told of them."""
        rows = [
            (file, first_row + row + 1, column, reason, value)
            for row, (column, reason, value) in sorted(self.found.items())
        ]
        columns = list(zip(*rows, strict=True)) or [()] * len(TOLD)
        arrays = [pa.array(c, field.type) for c, field in zip(columns, TOLD, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=TOLD)


def write_quarantine(folder: Path, bad: pa.Table) -> None:
    """Write the bad rows of the interactions, or remove the file of earlier ones; where it holds
    them already it stays untouched, as a folder that cannot be written has to."""
    path = folder / "quarantine" / "interactions.csv"
    if bad.num_rows == 0:
        path.unlink(missing_ok=True)
        return
    content = BytesIO()
    csv.write_csv(bad, content)
    if path.exists() and path.read_bytes() == content.getvalue():
        return
    with atomic_file(path) as file:
        file.write_bytes(content.getvalue())


def save_bad_rows(folder: Path, bad: pa.Table) -> None:
    """Write the bad rows into a prepared folder."""
    parquet.write_table(bad, folder / _FILE)


def read_bad_rows(folder: Path) -> pa.Table:
    """Those that a prepared folder was made without."""
    path = folder / _FILE
    return parquet.read_table(path) if path.exists() else TOLD.empty_table()
