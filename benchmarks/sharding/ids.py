"""The ids of a benchmark's batches: uniform, Zipf or from a log; the same on every rank.

Example:
    made = make_batches(tables, 1024, "zipf:1.1", seed=0, rank=0, world_size=2)
    check_ids(made.parts, tables)
    source = itertools.cycle(made.parts)
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from flm_benchmarks.sharding.model import NUMBERS, SampleBatch
from numpy.typing import NDArray
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from flm_torchrec.errors import UserError
from flm_torchrec.planning.tables import Table

DISTINCT_BATCHES = 8
ZIPF_EXPONENT = 1.05
Log = Mapping[str, NDArray[np.int64]]  # ids of each feature, in the order of the log


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """A rank's part of several batches, and what all ranks together look up in one."""

    parts: Sequence[SampleBatch]
    lookups: Mapping[str, float]  # ids of a batch by table, mean
    distinct: Mapping[str, float]  # distinct ids of a batch by table, mean


def normal_ids(text: str) -> str:
    """The name of a distribution, with its exponent; UserError for another."""
    kind, _, exponent = text.partition(":")
    if kind == "zipf":
        try:
            value = float(exponent or ZIPF_EXPONENT)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise UserError(f"--ids: {text}; allowed: zipf:EXPONENT, a number above 0")
        return f"zipf:{value:g}"
    if text not in ("uniform", "log"):
        raise UserError(f"--ids: '{text}' is not one of uniform, zipf, zipf:EXPONENT, log")
    return text


def zipf_rows(
    generator: np.random.Generator, rows: int, count: int, exponent: float
) -> NDArray[np.int64]:
    """-> (count,) rows; the k-th most frequent one is drawn about k^-exponent times as often as
    the first. Frequent rows lie scattered, as those of hashed ids do."""
    drawn = generator.random(count)
    if abs(exponent - 1) < 1e-9:
        rank = np.power(rows + 1.0, drawn)
    else:
        power = 1 - exponent
        rank = np.power(1 + drawn * (np.power(rows + 1.0, power) - 1), 1 / power)
    place = np.clip(rank.astype(np.int64) - 1, 0, rows - 1)
    stride = max(1, int(rows * 0.618))
    while math.gcd(stride, rows) > 1:  # coprime: a permutation of the rows
        stride += 1
    return (place * stride) % rows


def read_log(path: Path, tables: Sequence[Table]) -> Log:
    """The columns of a .parquet or .csv file that bear the features' names; a cell is an id or a
    list of them. UserError where a column is missing, no integers or outside its table."""
    if path.suffix not in (".parquet", ".csv"):
        raise UserError(f"--log {path}: allowed: a .parquet or a .csv file")
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    log: dict[str, NDArray[np.int64]] = {}
    for table in tables:
        for feature in table.feature_names:
            if feature not in frame.columns:
                has = ", ".join(map(str, frame.columns))
                raise UserError(f"--log {path}: there is no column '{feature}'; it has {has}")
            column = pd.Series(frame[feature]).dropna()
            values = column.explode().dropna() if column.dtype == object else column
            try:
                ids = values.to_numpy(dtype=np.int64)
            except (TypeError, ValueError):
                ids = np.empty(0, np.int64)
            if not len(ids) or not np.array_equal(ids, values.to_numpy(dtype=np.float64)):
                raise UserError(f"--log {path}: column '{feature}' has no whole numbers only")
            check_range(feature, int(ids.min()), int(ids.max()), table)
            log[feature] = ids
    return log


def check_range(feature: str, least: int, most: int, table: Table) -> None:
    """UserError where an id of a feature lies outside its table."""
    for value in (least, most):
        if not 0 <= value < table.rows:
            raise UserError(
                f"feature '{feature}': id {value} is no row of table '{table.name}', which has "
                f"{table.rows:,} rows; allowed: 0 to {table.rows - 1}"
            )


def owners(tables: Sequence[Table]) -> dict[str, Table]:
    """The table of each feature; UserError where a feature has two."""
    owner: dict[str, Table] = {}
    for table in tables:
        for feature in table.feature_names:
            if feature in owner:
                raise UserError(
                    f"feature '{feature}' is read by the tables {owner[feature].name}, "
                    f"{table.name}; allowed: each feature once, in one table"
                )
            owner[feature] = table
    return owner


def check_ids(parts: Sequence[SampleBatch], tables: Sequence[Table]) -> None:
    """UserError where a batch has a feature of no table, or an id that its table lacks."""
    owner = owners(tables)
    for part in parts:
        for kjt in (part.features, part.weighted):
            for feature in kjt.keys() if kjt is not None else ():
                if feature not in owner:
                    raise UserError(
                        f"feature '{feature}' is in no table; allowed: {', '.join(owner)}"
                    )
                assert kjt is not None
                values = kjt[feature].values()
                if values.numel():
                    least, most = int(values.min()), int(values.max())
                    check_range(feature, least, most, owner[feature])


def make_batches(
    tables: Sequence[Table],
    batch_size: int,
    ids: str,
    *,
    seed: int,
    rank: int,
    world_size: int,
    log: Log | None = None,
) -> Batches:
    """The rank's share of DISTINCT_BATCHES global batches; every rank draws all of each."""
    each = batch_size // world_size
    own = slice(rank * each, (rank + 1) * each)
    parts = []
    lookups = {table.name: 0.0 for table in tables}
    distinct = dict(lookups)
    for number in range(DISTINCT_BATCHES):
        bags: dict[bool, list[_Bags]] = {False: [], True: []}
        for place, table in enumerate(tables):
            generator = np.random.default_rng([seed, number, place])
            of_table = [
                _draw(generator, table, feature, batch_size, ids, number, log)
                for feature in table.feature_names
            ]
            bags[table.is_weighted] += of_table
            values = np.concatenate([feature.values for feature in of_table])
            lookups[table.name] += len(values) / DISTINCT_BATCHES
            distinct[table.name] += len(np.unique(values)) / DISTINCT_BATCHES
        generator = np.random.default_rng([seed, number, len(tables)])
        numbers = generator.standard_normal((batch_size, NUMBERS), np.float32)
        labels = generator.integers(2, size=batch_size).astype(np.float32)
        parts.append(
            SampleBatch(
                features=_kjt(bags[False], own, generator=None),
                weighted=_kjt(bags[True], own, generator=generator),
                numbers=torch.from_numpy(numbers[own]),
                labels=torch.from_numpy(labels[own]),
            )
        )
    return Batches(parts=parts, lookups=lookups, distinct=distinct)


@dataclass(frozen=True, slots=True)
class _Bags:
    feature: str
    values: NDArray[np.int64]  # of all bags
    lengths: NDArray[np.int64]  # (batch_size,)


def _draw(
    generator: np.random.Generator,
    table: Table,
    feature: str,
    batch_size: int,
    ids: str,
    number: int,
    log: Log | None,
) -> _Bags:
    whole = math.floor(table.pooling)
    lengths = whole + (generator.random(batch_size) < table.pooling - whole).astype(np.int64)
    count = int(lengths.sum())
    if ids == "log":
        assert log is not None
        column = log[feature]
        start = round(number * batch_size * table.pooling)
        values = column[(start + np.arange(count)) % len(column)]
    elif ids == "uniform":
        values = generator.integers(table.rows, size=count)
    else:
        values = zipf_rows(generator, table.rows, count, float(ids.partition(":")[2]))
    return _Bags(feature, values, lengths)


def _kjt(
    bags: Sequence[_Bags], own: slice, *, generator: np.random.Generator | None
) -> KeyedJaggedTensor | None:
    if not bags:
        return None
    values = []
    for each in bags:
        ends = np.concatenate([[0], np.cumsum(each.lengths)])
        values.append(each.values[ends[own.start] : ends[own.stop]])
    together = np.concatenate(values)
    weights = None
    if generator is not None:
        weights = torch.from_numpy(generator.random(len(together), np.float32))
    return KeyedJaggedTensor(
        [each.feature for each in bags],
        torch.from_numpy(together),
        lengths=torch.from_numpy(np.concatenate([each.lengths[own] for each in bags])),
        weights=weights,
    )
