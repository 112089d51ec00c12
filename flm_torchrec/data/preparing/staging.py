"""The interactions chunk by chunk in files of their own, so that no step holds the whole table.

A folder of chunks is filled piece by piece, each piece a pure function of the data folder, by any
number of processes; what a broken run left there is not made again.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.preparing.columns import Columns
from flm_torchrec.data.preparing.log_chunk import LogReader
from flm_torchrec.data.reading.bad_rows import TOLD
from flm_torchrec.data.reading.parts import Piece
from flm_torchrec.data.reading.tables import Table, piece_tables
from flm_torchrec.data.schema import Schema
from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_file, sweep

_ABANDONED_S = 86_400


@contextmanager
def staging_folder(made: Path, key: str) -> Iterator[Path]:
    """Yield a folder for chunks. It stays for the next run when this one is broken off, but not
    when the data are wrong; then no empty folder is left either."""
    prepared = made / "prepared"
    folder = prepared / f".staging-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except UserError:
        shutil.rmtree(folder)
        raise
    else:
        for place in (prepared, made / "splits"):
            sweep(place)
        for left in prepared.glob(".staging-*"):
            # Of another key it may be another process that works there.
            if left == folder or time.time() - left.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)
    finally:
        for path in (prepared, made / "splits"):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stager:
    """Writes the chunks of a piece."""

    folder: Path
    schema: Schema
    widths: dict[str, int]
    catalogues: dict[str, str]  # "user", "item" -> what their catalogue, NAME.arrow, is called
    chunk_rows: int

    def __call__(self, place_and_piece: tuple[int, Piece]) -> list[str]:
        """The names of the files of a piece's chunks, in order."""
        place, piece = place_and_piece
        listed = self.folder / f"{place:05}.json"
        if listed.exists():
            return json.loads(listed.read_text(encoding="utf-8"))
        known = {
            key: (lambda key=key: _ids(self.folder / f"{key}.arrow"), name)
            for key, name in self.catalogues.items()
        }
        reader = LogReader(self.schema, self.widths, known)
        tables = piece_tables(
            piece,
            rows=self.chunk_rows,
            columns=reader.columns(),
            collect=self.schema.on_bad_rows != "error",
        )
        files = []
        for number, table in enumerate(tables):
            files.append(f"{place:05}-{number:05}.arrow")
            if not (self.folder / files[-1]).exists():
                self._write(files[-1], reader.read(table), table)
        with atomic_file(listed) as file:
            file.write_text(json.dumps(files), encoding="utf-8")
        return files

    def _write(self, name: str, chunk: pa.RecordBatch, source: Table) -> None:
        if source.bad is not None and source.bad.found:
            bad = source.bad.batch(str(source.path), source.first_row)
            write_arrow(self.folder / f"bad-{name}", bad)
        metadata = {"source_rows": str(source.num_rows)}
        write_arrow(self.folder / name, chunk.replace_schema_metadata(metadata))


def write_arrow(path: Path, batch: pa.RecordBatch) -> None:
    """Write a batch, to be mapped into memory."""
    with atomic_file(path) as file, pa.ipc.new_file(str(file), batch.schema) as writer:
        writer.write_batch(batch)


@lru_cache(maxsize=2)
def _ids(path: Path) -> pa.Array:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()["id"].combine_chunks()


class StagedLog:
    """The interactions in the chunks of a folder, in the source's order."""

    def __init__(self, folder: Path, files: list[str]) -> None:
        self._files = [folder / file for file in files]
        self._bad = [path for file in files if (path := folder / f"bad-{file}").exists()]
        metadata = [batch.schema.metadata[b"source_rows"] for batch in self._batches()]
        self._first_rows = np.cumsum([0, *map(int, metadata)])
        self.columns = Columns(self._batches)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for file in self._files:
            with pa.memory_map(str(file)) as mapped:
                yield pa.ipc.open_file(mapped).get_batch(0)

    def source_row(self) -> NDArray[np.int64]:
        """(n,) the row of the source, from 0 in the first part on."""
        chunks = zip(self._first_rows, self._batches(), strict=False)
        return np.concatenate([batch.column("row").to_numpy() + row for row, batch in chunks])

    def bad(self) -> pa.Table:
        """What is told of the bad rows, which are not among the others."""
        tables = []
        for file in self._bad:
            with pa.memory_map(str(file)) as mapped:
                tables.append(pa.ipc.open_file(mapped).read_all())
        return pa.concat_tables([TOLD.empty_table(), *tables])
