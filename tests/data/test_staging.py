"""Chunks and pieces: nothing of them shows in what is prepared, and none is made twice."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from small_data import LOG, SMALL, files_of, write_folder

from flm_torchrec.data.dataset import TRAIN, Dataset
from flm_torchrec.data.prepare import prepare
from flm_torchrec.data.preparing import stage_log
from flm_torchrec.data.reading import tables
from flm_torchrec.errors import UserError


def content(value: Any) -> Any:
    """All that a data set holds but its fingerprint, to be compared with ==."""
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value) if field.name != "fingerprint"]
        return {name: content(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {name: content(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray):
        plain = value.tolist()
        return (str(value.dtype), value.shape, repr(plain))
    return repr(value)


def as_parquet(folder: Path, *, row_group_size: int | None = None) -> Path:
    for file in folder.glob("*.csv"):
        table = pa.Table.from_pandas(pd.read_csv(file), preserve_index=False)
        parquet.write_table(table, file.with_suffix(".parquet"), row_group_size=row_group_size)
        file.unlink()
    return folder


def as_parts(folder: Path) -> Path:
    """The interactions in three files of a folder."""
    header, *rows = (folder / "interactions.csv").read_text().splitlines()
    (folder / "interactions").mkdir()
    for place, start in enumerate((0, 2, 7)):
        end = (2, 7, None)[place]
        lines = "\n".join([header, *rows[start:end]]) + "\n"
        (folder / f"interactions/{place}.csv").write_text(lines)
    (folder / "interactions.csv").unlink()
    return folder


@pytest.mark.parametrize("files", [SMALL, LOG], ids=["sequences", "log"])
def test_the_size_of_chunks_does_not_show(tmp_path, monkeypatch, files):
    whole = prepare(write_folder(tmp_path / "whole", files=files))
    monkeypatch.setattr(stage_log, "CHUNK_ROWS", 2)
    chunked = prepare(write_folder(tmp_path / "chunks", files=files))
    assert content(chunked) == content(whole)


@pytest.mark.parametrize("files", [SMALL, LOG], ids=["sequences", "log"])
def test_row_groups_of_parquet_and_csv_give_the_same(tmp_path, monkeypatch, files):
    whole = prepare(write_folder(tmp_path / "csv", files=files))
    monkeypatch.setattr(stage_log, "CHUNK_ROWS", 4)
    folder = write_folder(tmp_path / "parquet", files=files)
    assert content(prepare(as_parquet(folder, row_group_size=3))) == content(whole)


@pytest.mark.parametrize("files", [SMALL, LOG], ids=["sequences", "log"])
def test_parts_and_one_file_give_the_same(tmp_path, files):
    whole = prepare(write_folder(tmp_path / "whole", files=files))
    parts = prepare(as_parts(write_folder(tmp_path / "parts", files=files)))
    assert content(parts) == content(whole)


def test_a_part_without_values_changes_nothing_of_the_others(tmp_path):
    whole = as_parquet(write_folder(tmp_path / "whole", files=LOG))
    parts = as_parquet(write_folder(tmp_path / "parts", files=LOG))
    table = parquet.read_table(parts / "interactions.parquet")
    (parts / "interactions.parquet").unlink()
    for column in ("price", "device", "tags", "said"):
        place = table.column_names.index(column)
        values = [None, None, *table[column].to_pylist()[2:]]
        table = table.set_column(place, column, pa.array(values))
    parquet.write_table(table, whole / "interactions.parquet")
    (parts / "interactions").mkdir()
    for place, part in enumerate((table.slice(0, 2), table.slice(2))):
        typed = {name: pa.array(part[name].to_pylist()) for name in part.column_names}
        parquet.write_table(pa.table(typed), parts / f"interactions/{place}.parquet")
    assert pa.types.is_null(
        parquet.read_schema(parts / "interactions/0.parquet").field("tags").type
    )
    assert content(prepare(parts)) == content(prepare(whole))


def test_ids_are_texts_in_all_chunks_when_one_of_them_is_no_number(tmp_path, monkeypatch):
    monkeypatch.setattr(stage_log, "CHUNK_ROWS", 2)
    data = prepare(write_folder(tmp_path, {"interactions.csv": ("9,d", "x9,d")}, LOG))
    assert data.users.ids.tolist() == [None, "7", "8", "x9"]


def test_the_pieces_may_be_mapped_in_any_order(tmp_path):
    def backwards(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return [function(item) for item in reversed(list(items))][::-1]

    whole = prepare(write_folder(tmp_path / "whole", files=LOG))
    parts = as_parts(write_folder(tmp_path / "parts", files=LOG))
    assert content(prepare(parts, mapper=backwards)) == content(whole)


def test_a_run_that_was_broken_off_goes_on(tmp_path):
    folder = as_parts(write_folder(tmp_path / "parts", files=LOG))
    read: list[str] = []

    def counted(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            if len(read) == 2:
                read.append("broken")
                raise KeyboardInterrupt
            before = set(files_of(folder))
            yield function(item)
            read.append("read" if set(files_of(folder)) != before else "there")

    with pytest.raises(KeyboardInterrupt):
        prepare(folder, mapper=counted)
    (left,) = (folder / "prepared").glob(".staging-*")
    pieces = json.loads((left / "manifest.json").read_text())["pieces"]
    assert [file for file, *_ in pieces] == [f"interactions/{place}.csv" for place in range(3)]
    data = prepare(folder, mapper=counted)
    assert read == ["read", "read", "broken", "there", "there", "read"]
    assert not list((folder / "prepared").glob(".staging-*"))
    whole = prepare(write_folder(tmp_path / "whole", files=LOG))
    assert content(data) == content(whole)


def test_chunks_of_another_size_are_not_mixed_with_those_of_a_run_broken_off(tmp_path, monkeypatch):
    def broken(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        for item in list(items)[:1]:
            yield function(item)
        raise KeyboardInterrupt

    folder = write_folder(tmp_path / "log", files=LOG)
    monkeypatch.setattr(stage_log, "CHUNK_ROWS", 3)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, mapper=broken)
    monkeypatch.setattr(stage_log, "CHUNK_ROWS", 4)
    whole = prepare(write_folder(tmp_path / "whole", files=LOG))
    assert content(prepare(folder)) == content(whole)


def test_another_process_may_prepare_the_same_meanwhile(tmp_path):
    folder = write_folder(tmp_path, files=LOG)
    other: list[Dataset] = []

    def meanwhile(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        results = [function(item) for item in items]
        other.append(prepare(folder))
        return results

    assert content(prepare(folder, mapper=meanwhile)) == content(other[0])


def test_nothing_of_bad_data_stays(tmp_path):
    folder = write_folder(tmp_path, {"interactions.csv": ("3.5", "much")}, LOG)
    before = files_of(folder)
    with pytest.raises(UserError, match="data row 1, column 'price': 'much' is not a number"):
        prepare(folder)
    assert files_of(folder) == before
    assert not (folder / "prepared").exists()


def test_a_row_is_counted_in_its_part(tmp_path):
    folder = as_parts(write_folder(tmp_path, {"interactions.csv": ("8,c", ",c")}, LOG))
    with pytest.raises(UserError, match=r"interactions/1.csv: data row 5, column 'user': is empty"):
        prepare(folder)


def training(data: Dataset) -> dict[str, Any]:
    """All that is fitted, and the rows of training, entities by their ids."""
    log = data.interactions
    is_train = log.part == TRAIN
    found: dict[str, Any] = {
        "users": data.users.ids[log.user[is_train]],
        "items": data.items.ids[log.item[is_train]],
        "numbers": log.numbers[is_train],
        "before": log.before[is_train],
        "texts": {
            name: dict(zip(data.items.ids, texts, strict=True))
            for name, texts in data.items.text.items()
        },
        "levels": data.levels,
        "moments": data.moments,
    }
    for name, column in log.context.items():
        offsets = column.offsets if column.offsets is not None else np.arange(len(is_train) + 1)
        rows = [column.values[offsets[r] : offsets[r + 1]] for r in np.flatnonzero(is_train)]
        found[name] = (column.num_embeddings, rows)
    for name, label in log.labels.items():
        found[f"label {name}"] = label[is_train]
    for entity in (data.users, data.items):
        known, size = next((c.values, c.num_embeddings) for c in entity.columns.values())
        found[f"ids {len(found)}"] = (
            size,
            dict(zip(entity.ids[known > 0], known[known > 0], strict=True)),
        )
    return found


def test_nothing_held_out_is_visible_from_training(tmp_path):
    schema = LOG["schema.yaml"].replace(
        "click: binary,", "click: binary, kind: multiclass, price: real, rank: ordinal,"
    )
    rows = LOG["interactions.csv"].splitlines()
    rows = [
        rows[0] + ",kind,rank",
        *(f"{row},{'pq'[n % 2]},{n % 3}" for n, row in enumerate(rows[1:])),
    ]
    files = {"schema.yaml": schema, "interactions.csv": "\n".join(rows) + "\n"}
    first = prepare(write_folder(tmp_path / "first", files=files))
    rows[-2] = "77,bb,50,0,-5e6,radio,n|e|w,9;9,secret,aaa,17"
    rows[-1] = "6,a,60,1,7,phone,y,5;5,hidden,zzz,-3"
    files["interactions.csv"] = "\n".join(rows) + "\n"
    other = prepare(write_folder(tmp_path / "other", files=files))
    new = {None, "bb", "d"}
    found = [training(data) for data in (first, other)]
    for one in found:
        one["texts"] = {
            n: {i: t for i, t in texts.items() if i not in new} for n, texts in one["texts"].items()
        }
    assert repr(found[0]) == repr(found[1])
    assert "secret" not in repr(other.items.text)
    assert "hidden" not in repr(other.items.text)


def test_a_table_is_read_in_chunks_of_the_rows_asked_for(tmp_path):
    folder = write_folder(tmp_path, files=LOG)
    chunks = list(tables.read_chunks(folder, "interactions", 4))
    assert [(chunk.first_row, chunk.num_rows) for chunk in chunks] == [(0, 4), (4, 4), (8, 2)]
    shutil.rmtree(folder)
