"""A prepared data set in numpy arrays: entities, interactions, and what was fitted on training.

Example:
    dataset = prepare(Path("data/ml-100k"))
    print(dataset.items.titles[dataset.interactions.item[0]])
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from flm_torchrec.data.schema import Schema

TRAIN, VALIDATION, TEST = 0, 1, 2
PART_NAMES = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Column:
    """One categorical feature of an entity's rows: row r holds values[offsets[r]:offsets[r + 1]].

    A single-valued feature has exactly one value a row; a multi-valued one any number.
    """

    values: NDArray[np.int64]  # (nnz,) vocabulary rows; 0 = unknown
    offsets: NDArray[np.int64]  # (rows + 1,)
    num_embeddings: int  # rows that its table needs, the unknown row 0 included


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entity:
    """The catalogue of users or items.

    Row 0 is the unknown entity: its single-valued features hold [0], its multi-valued ones are
    empty, its texts "". The first column is the id itself; its vocabulary is fitted on training
    interactions, so that an entity without any has id value 0 but a row of its own.
    """

    ids: NDArray[np.object_]  # (rows,) as in the source; row 0 = None
    columns: dict[str, Column]
    text: dict[str, list[str]]  # rendered texts by name, each (rows,)

    @property
    def titles(self) -> list[str]:
        """(rows,) what to call each row: its first text, else its id."""
        names = ["" if id is None else str(id) for id in self.ids]
        first = next(iter(self.text.values()), names)
        return [text or name for text, name in zip(first, names, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Interactions:
    """Who met what, when, and what came of it; sorted by (user, time, source row)."""

    user: NDArray[np.int64]  # (n,) rows of the users
    item: NDArray[np.int64]  # (n,) rows of the items
    time: NDArray[np.int64]  # (n,) seconds
    source_row: NDArray[np.int64]  # (n,) row in the source file, from 0
    part: NDArray[np.int8]  # (n,) TRAIN, VALIDATION or TEST
    labels: dict[str, NDArray[np.float32]]  # each (n,); NaN = missing
    user_offsets: NDArray[np.int64]  # (user rows + 1,): user u owns user_offsets[u]:[u + 1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """What `prepare` makes and everybody reads."""

    schema: Schema
    users: Entity
    items: Entity
    interactions: Interactions
    levels: dict[str, NDArray[np.float32]]  # sorted distinct training values of ordinal labels
    fingerprint: str  # of the inputs, the schema and the split


_ARRAYS = ("user", "item", "time", "source_row", "part", "user_offsets")


def _save_entity(entity: Entity, folder: Path, name: str) -> dict[str, int]:
    columns = {"id": pa.array(entity.ids)}
    columns |= {f"text {key}": pa.array(texts) for key, texts in entity.text.items()}
    parquet.write_table(pa.table(columns), folder / f"{name}.parquet")
    for place, column in enumerate(entity.columns.values()):
        np.save(folder / f"{name}-{place}-values.npy", column.values)
        np.save(folder / f"{name}-{place}-offsets.npy", column.offsets)
    return {key: column.num_embeddings for key, column in entity.columns.items()}


def _load_array(file: Path) -> NDArray:
    # Copy on write: pages come from the file, yet the array is writable, as torch wants it.
    return np.load(file, mmap_mode="c").view(np.ndarray)


def _load_entity(folder: Path, name: str, num_embeddings: dict[str, int]) -> Entity:
    table = parquet.read_table(folder / f"{name}.parquet")
    ids = np.empty(table.num_rows, dtype=object)
    ids[:] = table["id"].to_pylist()
    text = {
        key.removeprefix("text "): [str(text) for text in table[key].to_pylist()]
        for key in table.column_names
        if key != "id"
    }
    columns = {
        key: Column(
            values=_load_array(folder / f"{name}-{place}-values.npy"),
            offsets=_load_array(folder / f"{name}-{place}-offsets.npy"),
            num_embeddings=size,
        )
        for place, (key, size) in enumerate(num_embeddings.items())
    }
    return Entity(ids=ids, columns=columns, text=text)


def save(dataset: Dataset, folder: Path) -> None:
    """Write `dataset` into the existing, empty `folder`."""
    interactions = dataset.interactions
    for name in _ARRAYS:
        np.save(folder / f"interactions-{name}.npy", getattr(interactions, name))
    for place, label in enumerate(interactions.labels.values()):
        np.save(folder / f"interactions-label-{place}.npy", label)
    meta = {
        "fingerprint": dataset.fingerprint,
        "schema": dataset.schema.model_dump(mode="json"),
        "users": _save_entity(dataset.users, folder, "users"),
        "items": _save_entity(dataset.items, folder, "items"),
        "labels": list(interactions.labels),
        "levels": {name: values.tolist() for name, values in dataset.levels.items()},
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def load(folder: Path) -> Dataset:
    """Read what `save` wrote; arrays are mapped, not read."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    arrays = {name: _load_array(folder / f"interactions-{name}.npy") for name in _ARRAYS}
    labels = {
        name: _load_array(folder / f"interactions-label-{place}.npy")
        for place, name in enumerate(meta["labels"])
    }
    levels = {name: np.array(values, np.float32) for name, values in meta["levels"].items()}
    return Dataset(
        schema=Schema.model_validate(meta["schema"]),
        users=_load_entity(folder, "users", meta["users"]),
        items=_load_entity(folder, "items", meta["items"]),
        interactions=Interactions(labels=labels, **arrays),
        levels=levels,
        fingerprint=meta["fingerprint"],
    )
