"""Users, items and interactions that came after the data: a `Dataset` that holds them too.

Example:
    newcomers = Newcomers(users=Path("users.csv"), history=Path("clicks.csv"))
    grown = with_newcomers(dataset, newcomers, Path("data/mine/prepared") / dataset.fingerprint)
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.compute import pc
from flm_torchrec.data.dataset import LATER, Column, Dataset, Entity, Interactions
from flm_torchrec.data.preparing.columns import Columns
from flm_torchrec.data.preparing.entities import Catalogue, build_entity, entity_ids
from flm_torchrec.data.preparing.fit_features import reordered
from flm_torchrec.data.preparing.fits import Fits
from flm_torchrec.data.preparing.interactions import first_repetition, histories_of
from flm_torchrec.data.preparing.labels import later_label
from flm_torchrec.data.preparing.log_chunk import LogReader
from flm_torchrec.data.preparing.split import by_user_time
from flm_torchrec.data.preparing.vocabulary import of_one_type
from flm_torchrec.data.reading.tables import read_file
from flm_torchrec.data.schema import NONE, EntitySchema, InteractionSchema, Schema
from flm_torchrec.data.storage import is_prepared
from flm_torchrec.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomers:
    """Files with the columns that the schema names; each may be missing."""

    users: Path | None = None  # that the data lack
    items: Path | None = None  # that the data lack
    history: Path | None = None  # interactions of old and new users with old and new items


def with_newcomers(dataset: Dataset, newcomers: Newcomers, prepared: Path) -> Dataset:
    """The data with newcomers behind what they hold, read by what was fitted before, which the
    folder `prepared` of the data keeps: their ids are unknown, their features are not.

    Nothing is fitted or written; rows of users and items stay. The interactions are `LATER`, and
    each user's history is in the order of time, whatever came from where.
    """
    assert is_prepared(prepared), f"{prepared} is no prepared folder"
    fits, schema = Fits(prepared), dataset.schema
    users, items, interactions = dataset.users, dataset.items, dataset.interactions
    if newcomers.users is not None:
        users = _grown(users, schema.users, newcomers.users, fits, "users")
        # Vectors of users are numbers; the newcomers' must not move the scale of the others'.
        assert dataset.users is not None
        users = replace(users, numbers=users.numbers_and_vectors(dataset.users), vectors={})
        num_more = len(users.ids) + 1 - len(interactions.user_offsets)
        offsets = np.pad(interactions.user_offsets, (0, num_more), mode="edge")
        interactions = replace(interactions, user_offsets=offsets)
    if newcomers.items is not None:
        items = _grown(items, schema.items, newcomers.items, fits, "items")
    grown = replace(dataset, users=users, items=items, interactions=interactions)
    if newcomers.history is None:
        return grown
    return replace(grown, interactions=_with_history(grown, newcomers.history, fits))


def _grown(
    entity: Entity | None, schema: EntitySchema | None, path: Path, fits: Fits, name: str
) -> Entity:
    """Users or items with those of a file behind them."""
    if entity is None or schema is None:
        raise UserError(f"{path}: the data have no {name}; allowed: where the schema has {name}")
    table = read_file(path)
    ids = entity_ids(table, schema.id)
    held, ids = of_one_type(pa.array(entity.ids[1:].tolist()), ids)
    is_held = pc.is_in(ids, held).to_numpy(zero_copy_only=False)
    if is_held.any():
        row = int(np.argmax(is_held))
        what = f"the data hold {ids[row]} already; allowed: ids that they lack"
        raise table.problem(row, schema.id, what)
    more = build_entity(
        Catalogue(name, schema, table, ids),
        ids,
        np.zeros(len(ids), bool),
        fits,
        reviews={text: [""] * (len(ids) + 1) for text in entity.text},
        widths={vector: values.shape[1] for vector, values in entity.vectors.items()},
    )
    every_id = np.empty(len(entity.ids) + len(ids), dtype=object)
    every_id[1:] = [*held.to_pylist(), *ids.to_pylist()]
    return replace(
        entity,
        ids=every_id,
        columns={key: _joined(column, more.columns[key]) for key, column in entity.columns.items()},
        numbers=np.concatenate([entity.numbers, more.numbers[1:]]),
        vectors={
            key: np.concatenate([values, more.vectors[key][1:]])
            for key, values in entity.vectors.items()
        },
        text={key: [*texts, *more.text[key][1:]] for key, texts in entity.text.items()},
    )


def _joined(column: Column, more: Column) -> Column:
    """The rows of a column, then those of another but for its row 0."""
    if column.offsets is None or more.offsets is None:
        values, offsets = np.concatenate([column.values, more.values[1:]]), None
    else:
        values = np.concatenate([column.values, more.values])
        offsets = np.concatenate([column.offsets, column.offsets[-1] + more.offsets[2:]])
    return Column(values=values, offsets=offsets, num_embeddings=column.num_embeddings)


def _with_history(dataset: Dataset, path: Path, fits: Fits) -> Interactions:
    """The interactions and those of a file."""
    names, users, items = dataset.schema.interactions, dataset.users, dataset.items
    if names is None or names.history == NONE:
        raise UserError(f"{path}: the data's schema keeps no history; allowed: without the file")
    assert users is not None
    assert items is not None
    ids = {"user": pa.array(users.ids[1:].tolist()), "item": pa.array(items.ids[1:].tolist())}
    known = {key: (lambda key=key: ids[key], f"the data or of --new-{key}s") for key in ids}
    table = read_file(path)
    batch = LogReader(_without_extras(dataset.schema, names), known=known).read(table)
    columns = Columns(lambda: iter([batch]))
    row = {}
    for key, values in ids.items():
        met = columns.discrete(key)
        place = pc.index_in(*of_one_type(met.values, values))
        row[key] = place.to_numpy().astype(np.int64)[met.codes] + 1
    new = np.flatnonzero(~_is_held(dataset.interactions, row, columns.array("time")))
    if len(new) == 0:
        return dataset.interactions
    row = {key: rows[new] for key, rows in row.items()}
    repeated = None if names.repeats else _repetition(dataset.interactions, **row)
    if repeated is not None and names.item is not None:
        what = "this user met this item before, but schema.yaml says interactions.repeats: false"
        raise table.problem(int(new[repeated]), names.item, what)
    batch = batch.take(pa.array(new))
    return _merged(dataset, names, Columns(lambda: iter([batch])), row, fits)


def _is_held(
    before: Interactions, row: Mapping[str, NDArray[np.int64]], time: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """(n,) whether an interaction, the same user and item in the same second, is among those
    before: an export of the latest clicks mostly overlaps with what the data hold."""
    met = np.stack([before.user, before.item, before.time], axis=1).astype(np.int64)
    asked = np.stack([row["user"], row["item"], np.floor(time).astype(np.int64)], axis=1)
    met = met[np.isin(met[:, 0], asked[:, 0])]
    _, place = np.unique(np.concatenate([met, asked]), axis=0, return_inverse=True)
    return np.isin(place[len(met) :], place[: len(met)])


def _without_extras(schema: Schema, names: InteractionSchema) -> Schema:
    """The schema as far as a history is read by it: no context, and no reviews."""
    items = schema.items and schema.items.model_copy(update={"text": {}})
    lean = names.model_copy(update={"context": {}})
    return schema.model_copy(update={"items": items, "interactions": lean})


def _repetition(
    before: Interactions, user: NDArray[np.int64], item: NDArray[np.int64]
) -> int | None:
    """The place among (user, item) of one where a user meets an item again; None without any."""
    is_theirs = np.isin(before.user, user)
    every_user = np.append(before.user[is_theirs], user).astype(np.int32)
    every_item = np.append(before.item[is_theirs], item).astype(np.int32)
    rows = first_repetition(every_user, every_item)
    return None if rows is None else rows[1] - int(is_theirs.sum())


def _merged(
    dataset: Dataset,
    names: InteractionSchema,
    columns: Columns,
    row: Mapping[str, NDArray[np.int64]],
    fits: Fits,
) -> Interactions:
    """The interactions and those of the `columns`, whose users and items have the rows `row`."""
    before, count = dataset.interactions, columns.num_rows
    assert dataset.users is not None
    user = np.append(before.user, row["user"])
    time = np.append(before.time, np.floor(columns.array("time")).astype(np.int64))
    was_event = np.zeros(len(before.user), bool)
    was_event[before.events] = True
    by_user = by_user_time(user, time)
    is_by_user = names.order == "by_user"
    order = by_user if is_by_user else np.arange(len(user))
    found = histories_of(
        user,
        None if is_by_user else time,
        np.append(was_event, _flags(columns, "history")),
        by_user,
        num_users=len(dataset.users.ids),
    )
    first_row = before.source_row.max(initial=-1) + 1
    return Interactions(
        user=user[order],
        item=np.append(before.item, row["item"])[order],
        time=time[order],
        source_row=np.append(before.source_row, first_row + np.arange(count))[order],
        part=np.append(before.part, np.full(count, LATER, np.int8))[order],
        positive=np.append(before.positive, _flags(columns, "positive"))[order],
        labels={
            name: np.append(values, later_label(columns, name, fits))[order]
            for name, values in before.labels.items()
        },
        context={
            name: reordered(_with_unknown(column, count), order)
            for name, column in before.context.items()
        },
        numbers=np.pad(before.numbers, ((0, count), (0, 0)))[order],
        **found,
    )


def _flags(columns: Columns, name: str) -> NDArray[np.bool_]:
    """(n,) where a predicate holds; without one it does everywhere."""
    return columns.array(name) if columns.has(name) else np.ones(columns.num_rows, bool)


def _with_unknown(column: Column, count: int) -> Column:
    """A column with `count` rows more, of which nothing is known."""
    values, offsets = column.values, column.offsets
    if offsets is None:
        values = np.pad(values, (0, count))
    else:
        offsets = np.pad(offsets, (0, count), mode="edge")
    return Column(values=values, offsets=offsets, num_embeddings=column.num_embeddings)
