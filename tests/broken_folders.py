"""Ways to break the small data folders, and the folders broken in the ways that data arrive in."""

import gzip
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from flm_apps.data import main
from pyarrow import parquet
from small_data import SMALL, files_of

from flm_torchrec.data.dataset import Dataset

Change = Callable[[Path], object]


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A folder of `files` after the `changes`; what `prepare` and `check` have to tell of it."""

    changes: tuple[Change, ...]
    told: str
    checked: str | None = None  # where `check` says it otherwise
    files: Mapping[str, str] = field(default_factory=lambda: SMALL)

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True)
        for name, text in self.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        for change in self.changes:
            change(folder)
        return folder


def assert_told(broken: Broken, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`prepare` ends with 2 and one message, `check` tells it too, and the folder stays."""
    broken.write(folder)
    before = files_of(folder)
    assert main(["prepare", str(folder)]) == 2
    printed = capfd.readouterr().err
    assert printed.startswith("flm: error: ")
    assert printed.count("\n") == 1, printed
    assert broken.told in printed
    is_of_schema = broken.told.startswith("schema.yaml")
    assert main(["check", str(folder)]) == (2 if is_of_schema else 1)
    found = capfd.readouterr()
    told = broken.told if broken.checked is None else broken.checked
    assert told in found.err + found.out
    assert files_of(folder) == before


def replaced(file: str, old: str, new: str | bytes) -> Change:
    """Another text in one place of a file."""

    def change(folder: Path) -> None:
        content = (folder / file).read_bytes()
        assert content.count(old.encode()) >= 1, old
        new_bytes = new if isinstance(new, bytes) else new.encode()
        (folder / file).write_bytes(content.replace(old.encode(), new_bytes, 1))

    return change


def written(file: str, content: str | bytes) -> Change:
    """Another content of a file, which may be new."""

    def change(folder: Path) -> None:
        (folder / file).parent.mkdir(exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode()
        (folder / file).write_bytes(data)

    return change


def recoded(file: str, code: Callable[[bytes], bytes]) -> Change:
    """The content of a file in another form."""
    return lambda folder: (folder / file).write_bytes(code((folder / file).read_bytes()))


def removed(file: str) -> Change:
    return lambda folder: (folder / file).unlink()


def moved(old: str, new: str) -> Change:
    """A file under another name."""

    def change(folder: Path) -> None:
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        (folder / old).rename(folder / new)

    return change


def in_parquet(table: str, **columns: object) -> Change:
    """A table as parquet, some of its columns with other values."""

    def change(folder: Path) -> None:
        frame = pd.read_csv(folder / f"{table}.csv").assign(**columns)
        frame.to_parquet(folder / f"{table}.parquet")
        (folder / f"{table}.csv").unlink()

    return change


def not_utf8(table: str, column: str) -> Change:
    """A table as parquet, whose texts in a column are no UTF-8 though its schema says so."""

    def change(folder: Path) -> None:
        data = pa.Table.from_pandas(pd.read_csv(folder / f"{table}.csv"), preserve_index=False)
        _, offsets, values = pa.array([b"\xff\xfe"] * data.num_rows, pa.binary()).buffers()
        texts = pa.StringArray.from_buffers(data.num_rows, offsets, values)
        data = data.set_column(data.column_names.index(column), column, texts)
        parquet.write_table(data, folder / f"{table}.parquet")
        (folder / f"{table}.csv").unlink()

    return change


def twice_in_parquet(table: str, column: str) -> Change:
    """A table as parquet with two columns of one name."""

    def change(folder: Path) -> None:
        data = pa.Table.from_pandas(pd.read_csv(folder / f"{table}.csv"), preserve_index=False)
        parquet.write_table(data.append_column(column, data[column]), folder / f"{table}.parquet")
        (folder / f"{table}.csv").unlink()

    return change


def cut(file: str, size: int) -> Change:
    """The first bytes of a file."""
    return recoded(file, lambda content: content[:size])


def column_of(table: str, column: str, values: Iterable[object]) -> Change:
    """Other values in a column of a csv."""

    def change(folder: Path) -> None:
        frame = pd.read_csv(folder / f"{table}.csv", dtype=str)
        frame[column] = list(values)
        frame.to_csv(folder / f"{table}.csv", index=False)

    return change


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def contents(dataset: Dataset) -> dict[str, object]:
    """All that a data set holds, but for its schema and fingerprint."""
    found: dict[str, object] = {
        "levels": {name: level.tolist() for name, level in dataset.levels.items()},
        "moments": dataset.moments,
        "corpus": dataset.corpus,
    }
    for name, entity in (("users", dataset.users), ("items", dataset.items)):
        if entity is None:
            continue
        found[f"{name} ids"] = [None if id is None else str(id) for id in entity.ids]
        found[f"{name} numbers"] = entity.numbers.tolist()
        found[f"{name} vectors"] = {key: v.tolist() for key, v in entity.vectors.items()}
        found[f"{name} text"] = entity.text
        for key, column in entity.columns.items():
            offsets = column.offsets
            found[f"{name} {key}"] = (
                column.values.tolist(),
                None if offsets is None else offsets.tolist(),
                column.num_embeddings,
            )
    log = dataset.interactions
    for key in ("user", "item", "time", "part", "positive", "events", "user_offsets", "before"):
        found[key] = getattr(log, key).tolist()
    found["numbers"] = log.numbers.tolist()
    for key, label in log.labels.items():
        found[f"label {key}"] = np.where(np.isnan(label), -99, label).tolist()
    for key, column in log.context.items():
        offsets = column.offsets
        found[f"context {key}"] = (
            column.values.tolist(),
            None if offsets is None else offsets.tolist(),
            column.num_embeddings,
        )
    return found
