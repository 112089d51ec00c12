"""What holds for any data: each row counts once, and neither file nor chunk shows in the result."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from broken_folders import contents
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from small_data import files_of

from flm_torchrec.data.checking.check import check
from flm_torchrec.data.dataset import TEST, TRAIN, VALIDATION, Column, Dataset
from flm_torchrec.data.prepare import prepare
from flm_torchrec.data.preparing import stage_log
from flm_torchrec.errors import UserError

SCHEMA = """interactions:
  user: user
  item: item
  time: time
  context:
    shade: categorical
    price: {kind: numeric, buckets: 3}
    tags: {kind: multi, separator: "|"}
  labels: {met: always}
split: SPLIT
"""
NAMES = ("user", "item", "time", "shade", "price", "tags")
KINDS = ("leave_one_out", "time", "random", "item_cold", "user_cold")
few = settings(max_examples=25, deadline=None, derandomize=True)
many = settings(max_examples=100, deadline=None, derandomize=True)

word = st.text("aZ07é中ß٣😀 -,;'\"\n\\", min_size=1, max_size=3)
ids = st.one_of(
    st.lists(word, min_size=1, max_size=6, unique=True),
    st.lists(st.integers(-5, 2**60).map(str), min_size=1, max_size=6, unique=True),
)


@dataclass(frozen=True)
class Log:
    """The interactions as texts, "" = missing, by column."""

    columns: dict[str, list[str]]
    split: str

    @property
    def num_rows(self) -> int:
        return len(self.columns["user"])

    def write_schema(self, folder: Path) -> Path:
        (folder / "schema.yaml").write_text(SCHEMA.replace("SPLIT", self.split))
        return folder

    def write_csv(self, file: Path, rows: slice = slice(None)) -> None:
        file.parent.mkdir(exist_ok=True)
        with file.open("w", encoding="utf-8", newline="") as opened:
            writer = csv.writer(opened)
            writer.writerow(NAMES)
            writer.writerows(list(zip(*(self.columns[n] for n in NAMES), strict=True))[rows])

    def write_parquet(self, file: Path, *, row_group_size: int) -> None:
        table = pa.table({name: pa.array(self.columns[name]) for name in NAMES})
        parquet.write_table(table, file, row_group_size=row_group_size)


@st.composite
def logs(draw: st.DrawFn) -> Log:
    users, items = draw(ids), draw(ids)
    shades = draw(st.lists(word, min_size=1, max_size=4))
    row = st.tuples(
        st.sampled_from(users),
        st.sampled_from(items),
        st.integers(0, 6).map(str),
        st.sampled_from(["", *shades]),
        st.sampled_from(["", "1", "2.5", "-3", "1e9", " 7 "]),
        st.sampled_from(["", "x", "x|y", "y|x|y", "|", "z| x"]),
    )
    rows = draw(st.lists(row, min_size=3, max_size=16))
    columns = {
        name: list(values) for name, values in zip(NAMES, zip(*rows, strict=True), strict=True)
    }
    return Log(columns, draw(st.sampled_from(KINDS)))


@contextmanager
def new_folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


def attempt(folder: Path) -> Dataset | str:
    """The data, or what is wrong."""
    try:
        return prepare(folder)
    except UserError as error:
        return str(error)


def prepared(log: Log, folder: Path) -> Dataset | None:
    """None where the split has nothing to train on, or nothing to hold out."""
    made = attempt(log.write_schema(folder))
    if isinstance(made, Dataset):
        return made
    assert f"split: {log.split} of {log.num_rows} interactions leaves none" in made
    return None


def rows_of(column: Column) -> list[list[int]]:
    offsets = np.arange(len(column.values) + 1) if column.offsets is None else column.offsets
    return [column.values[a:b].tolist() for a, b in pairwise(offsets)]


@few
@given(logs())
def test_every_interaction_is_there_once_and_sequences_are_in_order(log: Log) -> None:
    with new_folder() as folder:
        log.write_csv(folder / "interactions.csv")
        data = prepared(log, folder)
        if data is None or data.users is None or data.items is None:
            return
        found = data.interactions
        source = found.source_row.tolist()
        assert sorted(source) == list(range(log.num_rows))
        for name, ids in (("user", data.users.ids), ("item", data.items.ids)):
            told = [str(ids[row]) for row in getattr(found, name)]
            assert told == [log.columns[name][row] for row in source]
            assert len(set(ids[1:])) == len(ids) - 1
        assert found.time.tolist() == [int(log.columns["time"][row]) for row in source]
        keys = list(zip(found.user.tolist(), found.time.tolist(), source, strict=True))
        assert keys == sorted(keys)
        assert found.events.tolist() == list(range(log.num_rows))
        sizes = np.bincount(found.user, minlength=len(data.users.ids))
        assert np.diff(found.user_offsets).tolist() == sizes.tolist()


@few
@given(logs())
def test_parts_are_as_the_rule_says(log: Log) -> None:
    with new_folder() as folder:
        log.write_csv(folder / "interactions.csv")
        data = prepared(log, folder)
        if data is None:
            return
        found = data.interactions
        part, time = found.part, found.time
        if log.split == "leave_one_out":
            for user in np.unique(found.user):
                mine = part[found.user == user].tolist()
                held_out = [VALIDATION, TEST] if len(mine) > 2 else []
                assert mine == [TRAIN] * (len(mine) - len(held_out)) + held_out
            return
        assert set(part.tolist()) == {TRAIN, VALIDATION, TEST}
        if log.split == "time":
            assert time[part == TRAIN].max() < time[part == VALIDATION].min()
            assert time[part == VALIDATION].max() < time[part == TEST].min()
        elif log.split == "random":
            size = max(1, round(log.num_rows * 0.1))
            assert np.bincount(part).tolist() == [log.num_rows - 2 * size, size, size]
        else:
            rows = found.item if log.split == "item_cold" else found.user
            assert all(len(set(part[rows == row].tolist())) == 1 for row in np.unique(rows))


@few
@given(logs())
def test_equal_values_share_a_row_and_what_is_held_out_has_none(log: Log) -> None:
    with new_folder() as folder:
        log.write_csv(folder / "interactions.csv")
        data = prepared(log, folder)
        if data is None or data.users is None or data.items is None:
            return
        found = data.interactions
        is_train = found.part == TRAIN
        values = {
            "shade": [[v] for v in log.columns["shade"]],
            "tags": [[v.strip() for v in cell.split("|")] for cell in log.columns["tags"]],
        }
        for name, cells in values.items():
            column, met = found.context[name], set()
            seen: set[tuple[str, int]] = set()
            for source, row, train in zip(found.source_row, rows_of(column), is_train, strict=True):
                there = [v for v in cells[source] if v] if name == "tags" else cells[source]
                seen |= set(zip(there, row, strict=True))
                met |= {v for v in there if v} if train else set()
            assert {row for value, row in seen if value not in met} <= {0}
            known = {(value, row) for value, row in seen if value in met}
            assert sorted(row for _, row in known) == list(range(1, len(met) + 1))
            assert column.num_embeddings == len(met) + 1
        for entity, rows in ((data.users, found.user), (data.items, found.item)):
            (column,) = entity.columns.values()
            is_trained = np.isin(np.arange(len(entity.ids)), rows[is_train])
            assert ((column.values > 0) == is_trained).all()
            assert column.num_embeddings == is_trained.sum() + 1
        assert np.abs(found.numbers).max() <= 1


@settings(few, max_examples=8)
@given(logs(), st.integers(1, 4), st.integers(0, 16))
def test_chunks_parts_and_kinds_of_files_do_not_show(log: Log, size: int, place: int) -> None:
    found = []
    for form in ("csv", "chunks", "parquet", "parts"):
        with new_folder() as folder, pytest.MonkeyPatch.context() as patch:
            if form != "csv":
                patch.setattr(stage_log, "CHUNK_ROWS", size)
            if form == "parquet":
                log.write_parquet(folder / "interactions.parquet", row_group_size=size)
            elif form == "parts":
                log.write_csv(folder / "interactions/0.csv", slice(place))
                log.write_csv(folder / "interactions/1.csv", slice(place, None))
            else:
                log.write_csv(folder / "interactions.csv")
            data = prepared(log, folder)
            found.append(None if data is None else contents(data))
    assert found[1:] == found[:1] * 3


signs = (
    b",",
    b",,",
    b"\n",
    b"\r\n",
    b"\r",
    b'"',
    b'""',
    b"\xff",
    b"\xef\xbb\xbf",
    b"\0",
    b" ",
    b"|",
)
words = (b"user", b"time", b"7", b"u1", b"-1e999", b"nan", b"2024-05-01", b"99999999999999999999")
piece = st.sampled_from([*signs, *words])
header = ",".join(NAMES).encode() + b"\n"
noise = st.one_of(
    st.binary(max_size=60),
    st.lists(piece, max_size=30).map(b"".join),
    st.lists(piece, max_size=30).map(lambda pieces: header + b"".join(pieces)),
    st.lists(st.lists(piece, min_size=6, max_size=6), min_size=1, max_size=6).map(
        lambda rows: header + b"\n".join(b",".join(row) for row in rows)
    ),
)


def data_or_error(folder: Path) -> None:
    """Preparing ends with data, or with an error that leaves nothing; a check ends either way."""
    before = files_of(folder)
    made = attempt(folder)
    if isinstance(made, str):
        assert "interactions" in made
        assert files_of(folder) == before
    check(folder).text()


@many
@given(noise, st.sampled_from(["error", "quarantine"]))
def test_any_bytes_as_csv_end_in_data_or_in_an_error_of_the_user(data: bytes, policy: str) -> None:
    with new_folder() as folder:
        schema = SCHEMA.replace("SPLIT", f"leave_one_out\non_bad_rows: {policy}")
        (folder / "schema.yaml").write_text(schema)
        (folder / "interactions.csv").write_bytes(data)
        data_or_error(folder)


@few
@given(st.data())
def test_parquet_that_is_cut_anywhere_is_an_error_of_the_user(data: st.DataObject) -> None:
    log = Log({name: ["1", "2", "3"] for name in NAMES}, "leave_one_out")
    with new_folder() as folder:
        file = log.write_schema(folder) / "interactions.parquet"
        log.write_parquet(file, row_group_size=2)
        whole = file.read_bytes()
        file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        with pytest.raises(UserError, match=r"interactions\.parquet: "):
            prepare(folder)
        data_or_error(folder)
