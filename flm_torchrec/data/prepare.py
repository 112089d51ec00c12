"""From a data folder (users, items, interactions, schema.yaml) to a `Dataset`.

Example:
    dataset = prepare(Path("data/ml-100k"))
    print(len(dataset.interactions.user), dataset.items.titles[1])
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.compute import pc
from flm_torchrec.data.dataset import TRAIN, Dataset, load, save
from flm_torchrec.data.entities import build_entity, entity_ids
from flm_torchrec.data.interactions import build_interactions, entity_rows
from flm_torchrec.data.schema import EntitySchema, Schema
from flm_torchrec.data.split import leave_one_out, read_split, split_file, write_split
from flm_torchrec.data.tables import Table, read_table, table_file
from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_folder
from flm_torchrec.typed_yaml import load_yaml

_FORMAT = 2  # of the prepared folder; a change makes the old ones stale
TABLES = ("users", "items", "interactions")


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


def _ids_of_one_type(
    table: Table, schema: EntitySchema, ids: pa.Array
) -> tuple[pa.Array, pa.Array]:
    """The catalogue's ids and those of the interactions, texts where either are."""
    own = entity_ids(table, schema.id)
    if own.type != ids.type:
        return own.cast(pa.large_string()), ids.cast(pa.large_string())
    return own, ids


def _open(folder: Path, schema: Schema) -> _Sources:
    users, items, interactions = (read_table(folder, name) for name in TABLES)
    names = schema.interactions
    user_ids, user = _ids_of_one_type(users, schema.users, interactions.ids(names.user))
    item_ids, item = _ids_of_one_type(items, schema.items, interactions.ids(names.item))
    time = interactions.times(names.time)
    return _Sources(schema, users, items, interactions, user_ids, item_ids, user, item, time)


def _fit(sources: _Sources, part: NDArray[np.int8]) -> Dataset:
    """The data set without its fingerprint; what is fitted sees the training rows only."""
    schema, table = sources.schema, sources.interactions
    names = schema.interactions
    user = entity_rows(table, names.user, sources.user, sources.users, sources.user_ids)
    item = entity_rows(table, names.item, sources.item, sources.items, sources.item_ids)
    interactions, levels = build_interactions(
        table,
        names,
        user=user,
        item=item,
        time=sources.time,
        part=part,
        num_users=sources.users.num_rows + 1,
    )
    is_train = pa.array(part == TRAIN)
    trained_users, trained_items = sources.user.filter(is_train), sources.item.filter(is_train)
    return Dataset(
        schema=schema,
        users=build_entity(sources.users, schema.users, sources.user_ids, trained_users),
        items=build_entity(sources.items, schema.items, sources.item_ids, trained_items),
        interactions=interactions,
        levels=levels,
        fingerprint="",
    )


def _fingerprint(schema: Schema, files: list[Path]) -> str:
    digest = hashlib.sha256(f"{_FORMAT} {schema.model_dump_json()}".encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def prepare(folder: Path | str) -> Dataset:
    """Prepare a data folder, or open what was prepared from the same content before.

    Beside the tables it writes splits/leave_one_out.parquet, unless the file is there already:
    then it decides. Bad data raise `UserError` and leave the folder as it was.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of users, items, interactions")
    schema = load_yaml(folder / "schema.yaml", Schema)
    split = split_file(folder)
    inputs = [*(table_file(folder, name) for name in TABLES), split]
    has_split = split.exists()
    if has_split:
        prepared = folder / "prepared" / _fingerprint(schema, inputs)
        if prepared.exists():
            return load(prepared)
    sources = _open(folder, schema)
    if has_split:
        part = read_split(folder, sources.facts())
    else:
        user = pc.dictionary_encode(sources.user).indices.to_numpy()
        part = leave_one_out(user, sources.time)
    dataset = _fit(sources, part)
    if not has_split:
        write_split(folder, part, sources.facts())
    fingerprint = _fingerprint(schema, inputs)
    prepared = folder / "prepared" / fingerprint
    with atomic_folder(prepared) as aside:
        save(replace(dataset, fingerprint=fingerprint), aside)
    return load(prepared)
