"""From a data folder (users, items, interactions, schema.yaml) to a `Dataset`.

Example:
    dataset = prepare(Path("data/ml-100k"))
    print(len(dataset.interactions.user), dataset.items.titles[1])
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from flm_torchrec.data.dataset import TRAIN, Dataset, Interactions, load, save
from flm_torchrec.data.entities import build_entity, entity_ids
from flm_torchrec.data.schema import EntitySchema, InteractionSchema, Label, Schema
from flm_torchrec.data.split import leave_one_out, read_split, split_file, write_split
from flm_torchrec.data.tables import Table, read_table
from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_folder
from flm_torchrec.typed_yaml import load_yaml

_FORMAT = 1  # of the prepared folder; a change makes the old ones stale
_COMPARE = {
    ">=": pc.greater_equal,
    "<=": pc.less_equal,
    "==": pc.equal,
    "!=": pc.not_equal,
    ">": pc.greater,
    "<": pc.less,
}


@dataclass(frozen=True, slots=True)
class _Sources:
    """The tables of a data folder and the columns that tie them together, in file order."""

    schema: Schema
    users: Table
    items: Table
    interactions: Table
    user_ids: pa.Array  # of the users
    item_ids: pa.Array  # of the items
    user: pa.Array  # (n,) of the interactions
    item: pa.Array  # (n,)
    time: NDArray[np.int64] | NDArray[np.float64]  # (n,) seconds

    def facts(self) -> dict[str, pa.Array]:
        """What a split file says of each interaction, besides its part."""
        return {"user_id": self.user, "item_id": self.item, "timestamp": pa.array(self.time)}


def _ids_of_one_type(table: Table, schema: EntitySchema, ids: pa.Array) -> tuple[pa.Array, pa.Array]:
    """The catalogue's ids and those of the interactions, texts where either are."""
    own = entity_ids(table, schema.id)
    if own.type != ids.type:
        return own.cast(pa.large_string()), ids.cast(pa.large_string())
    return own, ids


def _open(folder: Path, schema: Schema) -> _Sources:
    users, items, interactions = (
        read_table(folder, name) for name in ("users", "items", "interactions")
    )
    names = schema.interactions
    user_ids, user = _ids_of_one_type(users, schema.users, interactions.ids(names.user))
    item_ids, item = _ids_of_one_type(items, schema.items, interactions.ids(names.item))
    time = interactions.times(names.time)
    return _Sources(schema, users, items, interactions, user_ids, item_ids, user, item, time)


def _entity_rows(
    interactions: Table, column: str, ids: pa.Array, table: Table, known: pa.Array
) -> NDArray[np.int64]:
    """(n,) row of each interaction's user or item among the `known` ids of `table`, from 1."""
    place = pc.index_in(ids, known)
    unknown = pc.index(place.is_null(), True).as_py()
    if unknown >= 0:
        raise interactions.problem(
            unknown, column, f"{ids[unknown]} is no id of {table.path.name}, which must list them all"
        )
    return place.to_numpy().astype(np.int64) + 1


def _check_repeats(
    interactions: Table, names: InteractionSchema, user: NDArray[np.int64], item: NDArray[np.int64]
) -> None:
    if names.repeats:
        return
    order = np.lexsort((item, user))  # stable: file order among equals
    is_repeat = (np.diff(user[order]) == 0) & (np.diff(item[order]) == 0)
    if is_repeat.any():
        place = int(np.argmax(is_repeat))
        first, second = order[place : place + 2]
        raise interactions.problem(
            int(second),
            names.item,
            f"this user met this item in data row {first + 1} already, "
            "but schema.yaml says interactions.repeats: false",
        )


def _label(interactions: Table, name: str, label: Label) -> NDArray[np.float32]:
    """(n,) a label's values; NaN = missing."""
    comparison = label.comparison()
    if comparison is not None:
        numbers = interactions.numbers(comparison.column)
        numbers = _COMPARE[comparison.operator](numbers, comparison.number).cast(pa.int64())
    else:
        numbers = interactions.numbers(name)
    if label.kind == "binary":
        is_other = pc.invert(pc.is_in(numbers, pa.array([0, 1], numbers.type)))
        bad = pc.index(pc.and_(is_other, numbers.is_valid()), True).as_py()
        if bad >= 0:
            raise interactions.problem(
                bad, name, f"{numbers[bad]} is not allowed; a binary label is 0, 1 or empty"
            )
    return numbers.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float32)


def _levels(
    interactions: Table, name: str, values: NDArray[np.float32], is_train: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """The sorted distinct training values of an ordinal label."""
    levels = np.unique(values[is_train & ~np.isnan(values)])
    if len(levels) < 2:
        raise UserError(
            f"{interactions.path}: column '{name}': an ordinal label needs two distinct values or "
            f"more in training, it has {len(levels)}"
        )
    return levels


def _fit(sources: _Sources, part: NDArray[np.int8], fingerprint: str) -> Dataset:
    """Everything that is fitted sees the training rows only."""
    schema, table = sources.schema, sources.interactions
    names = schema.interactions
    user = _entity_rows(table, names.user, sources.user, sources.users, sources.user_ids)
    item = _entity_rows(table, names.item, sources.item, sources.items, sources.item_ids)
    _check_repeats(table, names, user, item)
    is_train = part == TRAIN
    labels = {name: _label(table, name, label) for name, label in names.labels.items()}
    levels = {
        name: _levels(table, name, labels[name], is_train)
        for name, label in names.labels.items()
        if label.kind == "ordinal"
    }
    trained = pa.array(is_train)
    order = np.lexsort((sources.time, user))  # stable: ties keep file order
    counts = np.bincount(user, minlength=sources.users.num_rows + 1)
    return Dataset(
        schema=schema,
        users=build_entity(
            sources.users, schema.users, sources.user_ids, sources.user.filter(trained)
        ),
        items=build_entity(
            sources.items, schema.items, sources.item_ids, sources.item.filter(trained)
        ),
        interactions=Interactions(
            user=user[order],
            item=item[order],
            time=np.floor(sources.time[order]).astype(np.int64),
            source_row=order.astype(np.int64),
            part=part[order],
            labels={name: values[order] for name, values in labels.items()},
            user_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        ),
        levels=levels,
        fingerprint=fingerprint,
    )


def _fingerprint(schema: Schema, files: list[Path]) -> str:
    digest = hashlib.sha256(f"{_FORMAT} {schema.model_dump_json()}".encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
