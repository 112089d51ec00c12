"""A prepared folder: a `Dataset` in files, of which arrays are mapped and not read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from flm_torchrec.data.dataset import Column, Dataset, Entity, Interactions
from flm_torchrec.data.schema import EntitySchema, Schema

# The arrays of Interactions that are there once.
ARRAYS = (
    *("user", "item", "time", "source_row", "part", "positive"),
    *("numbers", "events", "user_offsets", "before"),
)


def save_array(folder: Path, name: str, array: NDArray) -> None:
    """Write an array of the interactions, or "label 0" for that of the first label."""
    np.save(folder / f"interactions {name}.npy", array)


def save_column(folder: Path, name: str, column: Column) -> int:
    """Write a column; gives what `load` has to be told of it."""
    np.save(folder / f"{name} values.npy", column.values)
    if column.offsets is not None:
        np.save(folder / f"{name} offsets.npy", column.offsets)
    return column.num_embeddings


def save_entity(entity: Entity | None, folder: Path, name: str) -> dict[str, Any] | None:
    """Write users or items; gives what `load` has to be told of them."""
    if entity is None:
        return None
    texts = {"id": pa.array(entity.ids)}
    texts |= {f"text {key}": pa.array(texts) for key, texts in entity.text.items()}
    parquet.write_table(pa.table(texts), folder / f"{name}.parquet")
    np.save(folder / f"{name} numbers.npy", entity.numbers)
    for place, vectors in enumerate(entity.vectors.values()):
        np.save(folder / f"{name} vectors {place}.npy", vectors)
    sizes = {
        key: save_column(folder, f"{name} {place}", column)
        for place, (key, column) in enumerate(entity.columns.items())
    }
    return {"columns": sizes, "vectors": list(entity.vectors)}


def save_meta(folder: Path, **meta: Any) -> None:
    """Write what is no array: what `load` reads, and what else is to be known later."""
    text = json.dumps(meta, indent=1, ensure_ascii=False)
    (folder / "meta.json").write_text(text, encoding="utf-8")


def is_prepared(folder: Path) -> bool:
    """Whether it is a prepared folder."""
    return (folder / "meta.json").is_file() and (folder / "interactions user.npy").is_file()


def read_fingerprints(folder: Path) -> list[str]:
    """That of a prepared folder, and those of the data that it has grown from."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return [meta["fingerprint"], *meta["grown_from"]]


def _load_array(file: Path) -> NDArray:
    # Copy on write: pages come from the file, yet the array is writable, as torch wants it.
    return np.load(file, mmap_mode="c").view(np.ndarray)


def _load_column(folder: Path, name: str, num_embeddings: int) -> Column:
    offsets = folder / f"{name} offsets.npy"
    return Column(
        values=_load_array(folder / f"{name} values.npy"),
        offsets=_load_array(offsets) if offsets.exists() else None,
        num_embeddings=num_embeddings,
    )


def _load_entity(
    folder: Path, name: str, meta: dict[str, Any] | None, schema: EntitySchema | None
) -> Entity | None:
    if meta is None:
        return None
    table = parquet.read_table(folder / f"{name}.parquet")
    ids = np.empty(table.num_rows, dtype=object)
    ids[:] = table["id"].to_pylist()
    return Entity(
        ids=ids,
        columns={
            key: _load_column(folder, f"{name} {place}", size)
            for place, (key, size) in enumerate(meta["columns"].items())
        },
        numbers=_load_array(folder / f"{name} numbers.npy"),
        vectors={
            key: _load_array(folder / f"{name} vectors {place}.npy")
            for place, key in enumerate(meta["vectors"])
        },
        text={
            key.removeprefix("text "): [str(text) for text in table[key].to_pylist()]
            for key in table.column_names
            if key != "id"
        },
        num_ids=schema.hash.ways if schema and schema.hash else 1,
    )


def _load_context(folder: Path, sizes: dict[str, int]) -> dict[str, Column]:
    """The columns of the context; those of one value a row lie side by side in one array."""
    singles = iter(_load_array(folder / "interactions context.npy").T)
    return {
        name: _load_column(folder, f"context {name}", size)
        if (folder / f"context {name} offsets.npy").exists()
        else Column(values=next(singles), offsets=None, num_embeddings=size)
        for name, size in sizes.items()
    }


def load(folder: Path) -> Dataset:
    """Read a prepared folder."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    arrays = {name: _load_array(folder / f"interactions {name}.npy") for name in ARRAYS}
    labels = {
        name: _load_array(folder / f"interactions label {place}.npy")
        for place, name in enumerate(meta["labels"])
    }
    context = _load_context(folder, meta["context"])
    corpus = folder / "corpus.parquet"
    schema = Schema.model_validate(meta["schema"])
    return Dataset(
        schema=schema,
        users=_load_entity(folder, "users", meta["users"], schema.users),
        items=_load_entity(folder, "items", meta["items"], schema.items),
        interactions=Interactions(labels=labels, context=context, **arrays),
        levels={name: np.array(values, np.float32) for name, values in meta["levels"].items()},
        moments={name: (mean, std) for name, (mean, std) in meta["moments"].items()},
        corpus=parquet.read_table(corpus)["text"].to_pylist() if corpus.exists() else [],
        fingerprint=meta["fingerprint"],
        grown_from=tuple(meta["grown_from"]),
    )
