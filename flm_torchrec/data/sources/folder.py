"""A new data folder, written table by table in row groups; it appears whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from flm_torchrec.data.checking.infer import Proposal
from flm_torchrec.data.schema import Label, Schema
from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_folder

_ROWS = 500_000  # of a row group


def rating_labels(liked: float = 4, *, are_levels: bool = True) -> dict[str, Label]:
    """What ratings tell: the rating itself, and whether it is `liked` or above."""
    return {
        "like": Label(kind="binary", value=f"rating >= {liked:g}"),
        "rating": Label(kind="ordinal" if are_levels else "real"),
    }


class NewFolder:
    """Tables that grow by blocks of rows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writers: dict[str, parquet.ParquetWriter] = {}
        self._waiting: dict[str, list[pa.Table]] = {}
        self.num_rows: dict[str, int] = {}

    def add(self, name: str, rows: pa.Table) -> None:
        """Append `rows` to the table `name`; the first rows decide its columns."""
        self.num_rows[name] = self.num_rows.get(name, 0) + rows.num_rows
        waiting = self._waiting.setdefault(name, [])
        waiting.append(rows)
        if sum(part.num_rows for part in waiting) >= _ROWS:
            self._flush(name)

    def _flush(self, name: str) -> None:
        rows = pa.concat_tables(self._waiting[name])
        self._waiting[name] = []
        if name not in self._writers:
            file = self.path / f"{name}.parquet"
            self._writers[name] = parquet.ParquetWriter(file, rows.schema)
        self._writers[name].write_table(rows, row_group_size=_ROWS)

    def write_schema(self, schema: Schema) -> None:
        """Write schema.yaml as one would write it by hand."""
        text = Proposal(schema, notes=[]).yaml()
        (self.path / "schema.yaml").write_text(text, encoding="utf-8")

    def close(self, *, is_whole: bool) -> None:
        """Write what waits, where all went well, and let go of the files."""
        try:
            for name, waiting in self._waiting.items():
                if is_whole and waiting:
                    self._flush(name)
        finally:
            for writer in self._writers.values():
                writer.close()


def check_is_new(out: Path) -> None:
    """Raise UserError where `out` holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not an empty folder; nothing was changed")


@contextmanager
def new_folder(out: Path | str) -> Iterator[NewFolder]:
    """Yield a folder to fill, which takes the name `out`, new or empty so far, on success."""
    out = Path(out)
    check_is_new(out)
    with atomic_folder(out) as path:
        folder = NewFolder(path)
        try:
            yield folder
        except BaseException:
            folder.close(is_whole=False)
            raise
        folder.close(is_whole=True)
