"""What is in the interactions of a folder and what is wrong with them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.checking.check_split import training_rows
from flm_torchrec.data.checking.findings import Catalogue, Findings, percent
from flm_torchrec.data.checking.leaks import find_leaks
from flm_torchrec.data.checking.log_facts import balance, count_keys
from flm_torchrec.data.checking.survey import Survey
from flm_torchrec.data.checking.uses import interaction_uses
from flm_torchrec.data.compute import pc
from flm_torchrec.data.preparing.columns import Discrete
from flm_torchrec.data.preparing.interactions import first_repetition
from flm_torchrec.data.preparing.log_chunk import LogReader, label_array
from flm_torchrec.data.preparing.split import by_user_time
from flm_torchrec.data.preparing.split_file import Facts, split_file
from flm_torchrec.data.preparing.vocabulary import hashed
from flm_torchrec.data.reading.location import Location
from flm_torchrec.data.reading.tables import Table
from flm_torchrec.data.reading.times import are_written_dates
from flm_torchrec.data.schema import InteractionSchema, Schema, Split

_SAMPLE = 50_000  # rows in which leaks are looked for
_SINGLE = ("categorical", "numeric", "text")


@dataclass(slots=True)
class _Lacking:
    """Interactions whose user or item a catalogue lacks."""

    column: str
    catalogue: Catalogue
    is_error: bool
    rows: int = 0
    first: str = ""

    def add(
        self, survey: Survey, chunk: Table, name: str, ids: pa.Array, keys: NDArray[np.uint64]
    ) -> None:
        """Add a chunk; the keys of missing ids are 0."""
        rows = np.flatnonzero((keys != 0) & ~np.isin(keys, self.catalogue.ids)).tolist()
        if not rows:
            return
        what = f"{ids[rows[0]]} is no id of {name}"
        if self.is_error:
            survey.tell(f"ids of {name}", chunk, rows, self.column, what)
            return
        self.first = self.first or str(chunk.problem(rows[0], self.column, what))
        self.rows += len(rows)


@dataclass(slots=True)
class _Log:
    """What is kept of all chunks; what once could not be read is left out."""

    parts: dict[str, list[NDArray]] = field(default_factory=dict)  # keys, time and labels
    broken: set[str] = field(default_factory=set)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)  # of labels that are texts
    files: list[Path | str] = field(default_factory=list)  # of each chunk
    starts: list[int] = field(default_factory=list)  # the rows of all parts before that file
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

    def discrete(self, name: str) -> Discrete | None:
        """Keys, distinct, and as places among these."""
        keys = self.array(name)
        if keys is None:
            return None
        distinct, codes = np.unique(keys, return_inverse=True)
        return Discrete(pa.array(distinct), codes.astype(np.int32))

    def source_row(self) -> NDArray[np.int64]:
        """(n,) the row of the source, from 0 in the first part on."""
        rows = zip(self.parts.get("row", []), self.starts, strict=True)
        return np.concatenate([np.zeros(0, np.int64), *(row + start for row, start in rows)])

    def place(self, index: int) -> tuple[Path | str, int]:
        """The file and data row of one of the rows whose keys are kept."""
        for file, rows in zip(self.files, self.parts["row"], strict=True):
            if index < len(rows):
                return file, int(rows[index]) + 1
            index -= len(rows)
        raise IndexError(index)


def check_interactions(
    location: Location, schema: Schema, catalogues: Mapping[str, Catalogue | None]
) -> Findings:
    """Facts, problems and warnings of the interactions, compared with the catalogues."""
    names = schema.interactions
    assert names is not None
    survey, log, uses = Survey("interactions"), _Log(), interaction_uses(names, schema.items)
    lacking = {
        name: _Lacking(column, catalogue, is_error=names.unknown_ids == "error")
        for name, column in (("users", names.user), ("items", names.item))
        if column is not None and (catalogue := catalogues.get(name)) is not None
    }
    counted = [column for kind, column in uses if kind == "categorical"]
    for chunk in survey.chunks(location, counted):
        columns = survey.read_all(chunk, uses)
        if not log.files:
            log.columns = {use: column.slice(0, _SAMPLE) for use, column in columns.items()}
        labels = _read_labels(survey, chunk, names)
        rows = _add_keys(log, survey, chunk, names, lacking)
        _add_labels(log, labels, rows)
    found = survey.findings(LogReader(schema).columns(), schema.on_bad_rows)
    _describe(found, log, names, schema.split_rule(), location)
    for name, missing in lacking.items():
        _compare(found, name, missing, log.array(name), survey.rows)
    found.warnings += _leaks(log, catalogues)
    return found


def _add_keys(
    log: _Log,
    survey: Survey,
    chunk: Table,
    names: InteractionSchema,
    lacking: Mapping[str, _Lacking],
) -> NDArray[np.int64]:
    """Add users, items and times of the rows in which nothing is bad, which are given."""
    keys: dict[str, NDArray[np.uint64] | None] = {}
    for name, column in (("users", names.user), ("items", names.item)):
        if column is None:
            continue
        values = survey.read(chunk, column, lambda table, c=column: table.ids(c))
        if values is None:
            keys[name] = None
            continue
        hashes = keys[name] = hashed(values)
        log.first.setdefault(name, hashes[:_SAMPLE])
        if name in lacking:
            lacking[name].add(survey, chunk, name, values, hashes)
        else:
            survey.check_spelling(column, values)
    time = None
    if (column := names.time) is not None:
        time = survey.read(chunk, column, lambda table: table.times(column))
    rows = np.setdiff1d(np.arange(chunk.num_rows), list(survey.broken))
    log.files.append(chunk.path)
    log.starts.append(survey.rows - chunk.first_row)
    log.add("row", rows + chunk.first_row)
    log.add("time", None if time is None else time[rows].astype(np.float64))
    for name, hashes in keys.items():
        log.add(name, None if hashes is None else hashes[rows])
    return rows


def _read_labels(
    survey: Survey, chunk: Table, names: InteractionSchema
) -> dict[str, pa.Array | None]:
    return {
        name: survey.read(chunk, f"label {name}", partial(label_array, name=name, label=label))
        for name, label in names.labels.items()
    }


def _add_labels(log: _Log, labels: Mapping[str, pa.Array | None], rows: NDArray[np.int64]) -> None:
    """Add the labels of some rows of a chunk."""
    for name, values in labels.items():
        numbers = None if values is None else _numbers(values, log.classes.setdefault(name, {}))
        log.add(f"label {name}", None if numbers is None else numbers[rows])
        if numbers is not None:
            log.first.setdefault(f"label {name}", numbers[:_SAMPLE])


def _numbers(values: pa.Array, classes: dict[str, int]) -> NDArray[np.float64]:
    """(n,) NaN = missing; texts and dates by their number in `classes`, which grows."""
    if pa.types.is_temporal(values.type) or _is_beyond_float64(values):
        values = values.cast(pa.large_string())
    if pa.types.is_large_string(values.type):
        encoded = pc.dictionary_encode(values)
        codes = [classes.setdefault(c, len(classes)) for c in encoded.dictionary.to_pylist()]
        values = pa.array(codes, pa.float64()).take(encoded.indices)
    return values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def _is_beyond_float64(values: pa.Array) -> bool:
    return pa.types.is_integer(values.type) and (pc.max(pc.abs(values)).as_py() or 0) > 2**53


def _describe(
    found: Findings, log: _Log, names: InteractionSchema, rule: Split, location: Location
) -> None:
    user, item, time = log.discrete("users"), log.discrete("items"), log.array("time")
    source_row = log.source_row()
    if len(source_row) == 0:
        return
    ids = {"user_id": user, "item_id": item}
    facts = Facts(
        source_row=source_row,
        ids={name: known for name, known in ids.items() if known is not None},
        time=time,
        by_user=None if user is None or time is None else by_user_time(user.codes, time),
    )
    found.extend(count_keys(facts.keys()))
    if time is not None and are_written_dates(time):
        found.warnings.append(
            f"interactions: column '{names.time}': numbers such as {time[0]:.0f} look like dates, "
            "but are read as seconds since 1970; write dates as 2024-01-31"
        )
    if not names.repeats and user is not None and item is not None:
        rows = first_repetition(user.codes, item.codes)
        if rows is not None:
            (one, first), (other, second) = map(log.place, rows)
            found.problems.append(
                f"{other}: data row {second}, column '{names.item}': this user met this item in "
                f"data row {first}{'' if one == other else f' of {one}'} already, but schema.yaml "
                "says interactions.repeats: false"
            )
    is_train = training_rows(facts, split_file(location.made, rule.kind), rule, found)
    for name, label in names.labels.items():
        values = log.array(f"label {name}")
        if values is not None:
            found.extend(balance(name, label, values, is_train, [*log.classes[name]]))


def _compare(
    found: Findings,
    name: str,
    lacking: _Lacking,
    met: NDArray[np.uint64] | None,
    num_rows: int,
) -> None:
    if lacking.rows:
        rows = percent(lacking.rows, num_rows)
        found.warnings.append(f"{lacking.first}; {rows} of the interactions have such ids")
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
