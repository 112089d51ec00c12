"""What is in the interactions of a folder and what is wrong with them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.checking.findings import Catalogue, Findings, percent
from flm_torchrec.data.checking.leaks import find_leaks
from flm_torchrec.data.checking.log_facts import (
    balance,
    count_keys,
    first_repetition,
    training_rows,
)
from flm_torchrec.data.checking.survey import Survey
from flm_torchrec.data.checking.uses import interaction_uses
from flm_torchrec.data.compute import pc
from flm_torchrec.data.preparing.log_chunk import LogReader, label_array
from flm_torchrec.data.preparing.split import SplitKeys, by_user_time
from flm_torchrec.data.preparing.vocabulary import hashed
from flm_torchrec.data.reading.tables import Table
from flm_torchrec.data.schema import InteractionSchema, Schema, Split

_SAMPLE = 50_000  # rows in which leaks are looked for
_SINGLE = ("categorical", "numeric", "text")


@dataclass(slots=True)
class _Lacking:
    """Interactions whose user or item a catalogue lacks."""

    column: str
    catalogue: Catalogue
    rows: int = 0
    first: str = ""

    def add(self, chunk: Table, ids: pa.Array, keys: NDArray[np.uint64]) -> None:
        """Add a chunk; the keys of missing ids are 0."""
        rows = np.flatnonzero((keys != 0) & ~np.isin(keys, self.catalogue.ids))
        if len(rows) and not self.rows:
            row = int(rows[0])
            self.first = str(chunk.problem(row, self.column, f"{ids[row]} is no id of"))
        self.rows += len(rows)


@dataclass(slots=True)
class _Log:
    """What is kept of all chunks; what once could not be read is left out."""

    parts: dict[str, list[NDArray]] = field(default_factory=dict)  # keys, time and labels
    broken: set[str] = field(default_factory=set)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)  # of labels that are texts
    files: list[Path | str] = field(default_factory=list)  # of each chunk
    # Of the first rows, bad ones among them: what features and texts are, keys and labels.
    columns: dict[tuple[str, str], pa.Array] = field(default_factory=dict)
    first: dict[str, NDArray] = field(default_factory=dict)

    def add(self, name: str, values: NDArray | None) -> None:
        if values is None:
            self.broken.add(name)
        else:
            self.parts.setdefault(name, []).append(values)

    def array(self, name: str) -> NDArray | None:
        if name in self.broken or name not in self.parts:
            return None
        values = np.concatenate(self.parts[name])
        return values if len(values) else None

    def codes(self, name: str) -> NDArray[np.int32] | None:
        """Keys as whole numbers from 0."""
        keys = self.array(name)
        return None if keys is None else np.unique(keys, return_inverse=True)[1].astype(np.int32)

    def place(self, index: int) -> tuple[Path | str, int]:
        """The file and data row of one of the rows whose keys are kept."""
        for file, rows in zip(self.files, self.parts["row"], strict=True):
            if index < len(rows):
                return file, int(rows[index]) + 1
            index -= len(rows)
        raise IndexError(index)


def check_interactions(
    folder: Path, schema: Schema, catalogues: Mapping[str, Catalogue | None]
) -> Findings:
    """Facts, problems and warnings of the interactions, compared with the catalogues."""
    names = schema.interactions
    assert names is not None
    survey, log, uses = Survey("interactions"), _Log(), interaction_uses(names, schema.items)
    lacking = {
        name: _Lacking(column, catalogue)
        for name, column in (("users", names.user), ("items", names.item))
        if column is not None and (catalogue := catalogues.get(name)) is not None
    }
    counted = [column for kind, column in uses if kind == "categorical"]
    for chunk in survey.chunks(folder, counted):
        columns = survey.read_all(chunk, uses)
        if not log.files:
            log.columns = {use: column.slice(0, _SAMPLE) for use, column in columns.items()}
        rows = _add_keys(log, survey, chunk, names, lacking)
        _add_labels(log, survey, chunk, names, rows)
    found = survey.findings(LogReader(schema).columns())
    _describe(found, log, names, schema.split_rule())
    for name, missing in lacking.items():
        _compare(found, name, missing, log.array(name), is_error=names.unknown_ids == "error")
    found.warnings += _leaks(log, catalogues)
    if schema.on_bad_rows != "error":
        _soften(found, schema.on_bad_rows)
    return found


def _add_keys(
    log: _Log,
    survey: Survey,
    chunk: Table,
    names: InteractionSchema,
    lacking: Mapping[str, _Lacking],
) -> NDArray[np.int64]:
    """Add users, items and times of the rows in which none of them is bad, which are given."""
    bad: set[int] = set()
    ids: dict[str, pa.Array | None] = {}
    for name, column in (("users", names.user), ("items", names.item)):
        if column is not None:
            ids[name], rows = survey.read(chunk, column, lambda table, c=column: table.ids(c))
            bad |= rows
    time = None
    if (column := names.time) is not None:
        time, rows = survey.read(chunk, column, lambda table: table.times(column))
        bad |= rows
    rows = np.setdiff1d(np.arange(chunk.num_rows), list(bad))
    log.files.append(chunk.path)
    log.add("row", rows + chunk.first_row)
    log.add("time", None if time is None else time[rows].astype(np.float64))
    for name, values in ids.items():
        if values is None:
            log.add(name, None)
            continue
        hashes = hashed(values)
        log.first.setdefault(name, hashes[:_SAMPLE])
        log.add(name, hashes[rows])
        if name in lacking:
            lacking[name].add(chunk, values, hashes)
        else:
            survey.check_spelling(str(getattr(names, name[:-1])), values)
    return rows


def _add_labels(
    log: _Log, survey: Survey, chunk: Table, names: InteractionSchema, rows: NDArray[np.int64]
) -> None:
    """Add the labels of some rows of a chunk."""
    for name, label in names.labels.items():
        read = partial(label_array, name=name, label=label)
        values, _ = survey.read(chunk, f"label {name}", read)
        numbers = None if values is None else _numbers(values, log.classes.setdefault(name, {}))
        log.add(f"label {name}", None if numbers is None else numbers[rows])
        if numbers is not None:
            log.first.setdefault(f"label {name}", numbers[:_SAMPLE])


def _numbers(values: pa.Array, classes: dict[str, int]) -> NDArray[np.float32]:
    """(n,) NaN = missing; texts and dates by their number in `classes`, which grows."""
    if pa.types.is_temporal(values.type):
        values = values.cast(pa.large_string())
    if pa.types.is_large_string(values.type):
        encoded = pc.dictionary_encode(values)
        codes = [classes.setdefault(c, len(classes)) for c in encoded.dictionary.to_pylist()]
        values = pa.array(codes, pa.float32()).take(encoded.indices)
    return values.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)


def _describe(found: Findings, log: _Log, names: InteractionSchema, rule: Split) -> None:
    user, item = (log.codes(name) for name in ("users", "items"))
    num_rows = sum(map(len, log.parts.get("row", [])))
    if num_rows == 0:
        return
    time = log.array("time")
    order = None if user is None or time is None else by_user_time(user, time)
    keys = SplitKeys(num_rows=num_rows, user=user, item=item, time=time, by_user=order)
    found.extend(count_keys(keys))
    if not names.repeats and user is not None and item is not None:
        rows = first_repetition(user, item)
        if rows is not None:
            (one, first), (other, second) = map(log.place, rows)
            found.problems.append(
                f"{other}: data row {second}, column '{names.item}': {_REPEATS} "
                f"data row {first}{'' if one == other else f' of {one}'} already, but schema.yaml "
                "says interactions.repeats: false"
            )
    is_train = training_rows(keys, rule, found)
    for name, label in names.labels.items():
        values = log.array(f"label {name}")
        if values is not None:
            found.extend(balance(name, label, values, is_train, [*log.classes[name]]))


def _compare(
    found: Findings,
    name: str,
    lacking: _Lacking,
    met: NDArray[np.uint64] | None,
    *,
    is_error: bool,
) -> None:
    if lacking.rows:
        rows = percent(lacking.rows, 0 if met is None else len(met))
        told = f"{lacking.first} {name}; {rows} of the interactions have such ids"
        (found.problems if is_error else found.warnings).append(told)
    if met is not None:
        ids = lacking.catalogue.ids
        never = int((~np.isin(ids, met)).sum())
        found.facts.append(f"{name} without interactions: {percent(never, len(ids))}")


def _leaks(log: _Log, catalogues: Mapping[str, Catalogue | None]) -> Iterator[str]:
    labels = {
        name.removeprefix("label "): values
        for name, values in log.first.items()
        if name.startswith("label ") and name not in log.broken
    }
    columns = _named("interactions", log.columns)
    for name, catalogue in catalogues.items():
        if catalogue is not None and name in log.first:
            rows = catalogue.rows(log.first[name])
            joined = {use: column.take(rows) for use, column in catalogue.columns.items()}
            columns |= _named(name, joined)
    return find_leaks(labels, columns)


def _named(table: str, columns: Mapping[tuple[str, str], pa.Array]) -> dict[str, pa.Array]:
    return {
        f"{table}: {'text' if kind == 'text' else 'column'} '{name}'": values
        for (kind, name), values in columns.items()
        if kind in _SINGLE
    }


_REPEATS = "this user met this item in"


def _soften(found: Findings, policy: str) -> None:
    """Bad rows are no problem where the schema says what becomes of them; that a pair repeats is
    no matter of one row."""
    rows = [line for line in found.problems if ": data row " in line and _REPEATS not in line]
    found.problems = [line for line in found.problems if line not in rows]
    found.warnings += [f"{line} (on_bad_rows: {policy})" for line in rows]
