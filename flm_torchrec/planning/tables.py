"""The embedding tables of a model as numbers alone: read from a YAML file, or one of the presets.

Example:
    tables = read_tables(Path("tables.yaml"))    # or PRESETS["dlrm-v2"]
    smaller = scaled(tables, most_bytes=8 << 30)

A file names each table with its rows, width and mean number of ids a bag:

    tables:
      item_ids: {rows: 1_000_000, dim: 64, pooling: 20, features: [clicked, bought]}
      user_ids: {rows: 5_000_000, dim: 64}
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from flm_torchrec.errors import UserError
from flm_torchrec.typed_yaml import Positive, Strict, load_yaml

Dtype = Literal["fp32", "fp16"]
BYTES: Mapping[Dtype, int] = {"fp32": 4, "fp16": 2}
WIDTHS = 4  # of which FBGEMM's fused tables are multiples wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One embedding table, and how it is read."""

    name: str
    rows: int
    dim: int
    pooling: float = 1.0  # ids a bag, mean
    features: tuple[str, ...] = ()  # that read it; empty: one of the table's name
    is_weighted: bool = False  # a weight beside each id
    dtype: Dtype = "fp32"

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features that read it, at least one."""
        return self.features or (self.name,)

    @property
    def row_bytes(self) -> int:
        """Of the weights alone, without the optimizer's state."""
        return self.dim * BYTES[self.dtype]


Name = Annotated[str, Field(min_length=1)]
Rows = Annotated[int, Field(gt=0, lt=2**63)]


class _TableEntry(Strict):
    rows: Rows
    dim: Positive
    pooling: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    features: tuple[str, ...] = ()
    weighted: bool = False
    dtype: Dtype = "fp32"


class _TablesFile(Strict):
    tables: Annotated[dict[Name, _TableEntry], Field(min_length=1)]


def read_tables(path: Path | str) -> tuple[Table, ...]:
    """The tables of a YAML file; UserError naming file and key where it can't be."""
    entries = load_yaml(path, _TablesFile).tables
    tables = tuple(
        Table(
            name=name,
            rows=entry.rows,
            dim=entry.dim,
            pooling=entry.pooling,
            features=entry.features,
            is_weighted=entry.weighted,
            dtype=entry.dtype,
        )
        for name, entry in entries.items()
    )
    counts = Counter(feature for table in tables for feature in table.feature_names)
    for feature, count in counts.items():
        if count > 1:
            owners = [table.name for table in tables if feature in table.feature_names]
            raise UserError(
                f"{path}: feature '{feature}' is read by the tables {', '.join(owners)}; "
                "allowed: each feature once, in one table"
            )
    return tables


def table_bytes(tables: Sequence[Table]) -> int:
    """Bytes of all weights."""
    return sum(table.rows * table.row_bytes for table in tables)


def scaled(tables: Sequence[Table], *, most_bytes: int) -> tuple[Table, ...]:
    """The tables with fewer rows where the weights would take more than `most_bytes`: the longest
    are cut to one common length, the others stay. UserError where a row each is too much."""
    if table_bytes(tables) <= most_bytes:
        return tuple(tables)

    def cut(most_rows: int) -> tuple[Table, ...]:
        return tuple(replace(table, rows=min(table.rows, most_rows)) for table in tables)

    least, most = 1, max(table.rows for table in tables)
    if table_bytes(cut(least)) > most_bytes:
        raise UserError(
            f"tables: a row of each takes {table_bytes(cut(least)):,} bytes; "
            f"allowed: {most_bytes:,} for all"
        )
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if table_bytes(cut(middle)) <= most_bytes else (least, middle)
    return cut(least)


def _named(prefix: str, rows: Sequence[int], dim: int, pooling: Sequence[float]) -> list[Table]:
    pairs = enumerate(zip(rows, pooling, strict=True))
    return [
        Table(name=f"{prefix}{place}", rows=count, dim=dim, pooling=ids)
        for place, (count, ids) in pairs
    ]


# Categories of Criteo's display advertising challenge (Kaggle, 2014), its 26 columns.
_CRITEO = (
    *(1_460, 583, 10_131_227, 2_202_608, 305, 24, 12_517, 633, 3, 93_145, 5_683, 8_351_593, 3_194),
    *(27, 14_992, 5_461_306, 10, 5_652, 2_173, 4, 7_046_547, 18, 15, 286_181, 105, 142_572),
)
# Rows and ids a bag of MLPerf's DLRM-DCNv2 (Criteo 1TB, multi-hot; MLCommons training, 2023).
_DLRM_ROWS = (
    *(40_000_000, 39_060, 17_295, 7_424, 20_265, 3, 7_122, 1_543, 63, 40_000_000, 3_067_956),
    *(405_282, 10, 2_209, 11_938, 155, 4, 976, 14, 40_000_000, 40_000_000, 40_000_000, 590_152),
    *(12_973, 108, 36),
)
_DLRM_IDS = (*(3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1),)
PRESETS: Mapping[str, tuple[Table, ...]] = {
    "criteo-small": tuple(_named("c", [min(rows, 100_000) for rows in _CRITEO], 16, [1.0] * 26)),
    "dlrm-v2": tuple(_named("c", _DLRM_ROWS, 128, _DLRM_IDS)),
    "equal": tuple(_named("t", [1_000_000] * 4, 64, [10.0] * 4)),
    "one-giant": tuple(
        _named("t", [10_000_000, *[10_000] * 7], 64, [20.0, *[2.0] * 7]),
    ),
    "many-small": tuple(_named("t", [5_000] * 100, 16, [1.0] * 100)),
}


def preset(name: str) -> tuple[Table, ...]:
    """The tables of a preset; UserError with the names there are."""
    if name not in PRESETS:
        raise UserError(f"preset: '{name}' is not one of {', '.join(PRESETS)}")
    return PRESETS[name]
