"""A schema for a folder without one, guessed from the names and values of its columns.

Example:
    print(propose(Path("my-data")).yaml())
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import yaml
from numpy.typing import NDArray

from flm_torchrec.data.checking import roles
from flm_torchrec.data.checking.infer_columns import (
    Columns,
    columns_of,
    corpus_of,
    entity_of,
    features_of,
    items_of,
    take_texts,
)
from flm_torchrec.data.compute import pc
from flm_torchrec.data.preparing.vocabulary import hashed
from flm_torchrec.data.reading.location import Location
from flm_torchrec.data.reading.parts import is_there
from flm_torchrec.data.reading.tables import Table, read_chunks
from flm_torchrec.data.schema import InteractionSchema, Label, Schema
from flm_torchrec.errors import UserError

_SAMPLE = 200_000  # rows of a table that are looked at
_Pair = tuple[str, str] | tuple[None, None]
_ODD = np.uint64(0x9E3779B97F4A7C15)  # spreads the bits of a hash


@dataclass(frozen=True, slots=True)
class Proposal:
    """A schema, and what a reader should know of how it came about."""

    schema: Schema
    notes: list[str]

    def yaml(self) -> str:
        """The schema as one would write it, below the notes as comments."""
        content = _short(self.schema.model_dump(mode="json", exclude_defaults=True))
        style = {"sort_keys": False, "allow_unicode": True, "width": 100}
        body = yaml.safe_dump(content, default_flow_style=None, **style)
        return "".join(f"# {note}\n" for note in self.notes) + body


def _short(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return value["kind"] if value.keys() == {"kind"} else {k: _short(v) for k, v in value.items()}


def infer(folder: Path | str) -> Schema:
    """Propose a schema for the tables of `folder`."""
    return propose(folder).schema


def propose(folder: Path | str) -> Proposal:
    """Propose a schema for the tables of `folder`, from at most 200,000 rows of each."""
    location = Location.existing(folder)
    notes: list[str] = []
    samples = {
        name: _sample(location, name) for name in ("users", "items", "interactions", "corpus")
    }
    columns = {name: columns_of(name, sample, notes) for name, sample in samples.items()}
    corpus = corpus_of(columns["corpus"])
    if samples["interactions"] is not None:
        schema = _with_interactions(location, columns, samples["interactions"], corpus)
    elif corpus is not None:
        schema = Schema(corpus=corpus)
    else:
        raise UserError(f"{location.url}: has neither interactions nor a corpus; one is needed")
    return Proposal(schema, notes)


def _sample(location: Location, name: str) -> Table | None:
    """The first rows of a table, or None where it is not there."""
    if not is_there(location, name):
        return None
    chunks, num_rows = [], 0
    for chunk in read_chunks(location, name, _SAMPLE):
        chunks.append(chunk)
        num_rows += chunk.num_rows
        if num_rows >= _SAMPLE:
            break
    joined = pa.concat_tables([chunk.data for chunk in chunks], promote_options="permissive")
    return replace(chunks[0], data=joined)


def _with_interactions(
    location: Location, columns: dict[str, Columns], sample: Table, corpus: str | None
) -> Schema:
    """The schema of a folder that has interactions; `sample` holds the first of them."""
    log, notes = columns["interactions"], columns["interactions"].notes
    user, user_id = _ids(log, columns["users"], "user")
    item, item_id = _ids(log, columns["items"], "item")
    time = roles.find_time(log.free)
    if time is not None and roles.in_milliseconds(log.all[time]):
        notes.append(f"interactions: '{time}' looks like milliseconds; make it seconds first")
    log.take(time)
    labels = _where_clicked(roles.find_labels(log.free), sample)
    log.take(*roles.used_by(labels, log.free))
    if not labels:
        notes.append("interactions: no column of labels was found")
    reviews = [*chain(*take_texts(log))] if item is not None else []
    given = {"user": user, "item": item, "time": time, "labels": labels}
    given |= {"context": features_of(log), **_order(given, roles.clicks(labels), sample)}
    if user is not None and item is not None:
        catalogues = {user: (columns["users"], user_id), item: (columns["items"], item_id)}
        given |= _met(location, user, item, catalogues, notes)
    return Schema(
        users=entity_of(columns["users"], user_id) if user_id is not None else None,
        items=items_of(columns["items"], item_id, reviews) if item_id is not None else None,
        interactions=InteractionSchema(**given),
        corpus=corpus,
    )


def _ids(log: Columns, catalogue: Columns, role: Literal["user", "item"]) -> _Pair:
    """The column of ids in the interactions and the catalogue's, found and taken."""
    pair = roles.find_ids(log.free, catalogue.free, of_users=role == "user") or (None, None)
    if pair[0] is None:
        log.notes.append(f"interactions: no column of {role} ids was found")
    log.take(pair[0])
    return pair


def _where_clicked(labels: dict[str, Label], sample: Table) -> dict[str, Label]:
    """Conversions count where there was a click, if there is none elsewhere."""
    click = roles.clicks(labels)
    if click is None:
        return labels
    is_clicked = pc.equal(sample.numbers(click), 1)
    where = Label(kind="binary", where=f"{click} == 1")
    for name in [name for name in labels if roles.is_conversion(name)]:
        converted = pc.equal(sample.numbers(name), 1)
        if pc.all(pc.or_(pc.invert(converted), is_clicked)).as_py():
            labels[name] = where
    return labels


def _order(given: Mapping[str, Any], click: str | None, sample: Table) -> dict[str, str]:
    """Sequences where there are users, items and times; logs of what was shown and clicked."""
    user, item, time = given["user"], given["item"], given["time"]
    keys: dict[str, str] = {}
    if None in (user, item, time):
        keys |= {"order": "by_log", "history": "none"}
    elif click is not None:
        keys |= {"order": "by_log", "history": f"{click} == 1"}
    if click is not None and None not in (user, item):
        keys["positives"] = f"{click} == 1"
        if time is not None and roles.groups_of_clicks(sample, user, time, click):
            keys["negatives"] = "logged"
    return keys


def _met(
    location: Location,
    user: str,
    item: str,
    catalogues: Mapping[str, tuple[Columns, str | None]],
    notes: list[str],
) -> dict[str, Any]:
    """Whether users meet items again, and whether the catalogues lack ids, over all rows."""
    known = {
        column: _all_ids(location, columns.table, own)
        for column, (columns, own) in catalogues.items()
        if own is not None and columns.all
    }
    pairs, lacking = [], set()
    for chunk in read_chunks(location, "interactions"):
        keys = {name: hashed(chunk.discrete(name)) for name in (user, item)}
        pairs.append(keys[user] * _ODD + keys[item])
        lacking |= {name for name in known if not np.isin(keys[name], known[name]).all()}
    for name in lacking:
        table = catalogues[name][0].table
        notes.append(f"interactions: {table} lacks ids of '{name}', hence unknown_ids: unknown")
    pair = np.concatenate(pairs)
    met: dict[str, Any] = {"unknown_ids": "unknown"} if lacking else {}
    return met if len(np.unique(pair)) < len(pair) else met | {"repeats": False}


def _all_ids(location: Location, table: str, column: str) -> NDArray[np.uint64]:
    return np.concatenate(
        [hashed(chunk.discrete(column)) for chunk in read_chunks(location, table)]
    )
