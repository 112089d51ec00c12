"""From staged interactions and catalogues to a split, and to all that is fitted on its training."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.dataset import TRAIN, Entity
from flm_torchrec.data.preparing.entities import Catalogue, build_entity
from flm_torchrec.data.preparing.fits import Fits
from flm_torchrec.data.preparing.interactions import Log, check_repeats, write_interactions
from flm_torchrec.data.preparing.reviews import review_texts
from flm_torchrec.data.preparing.split import by_user_time, split_parts
from flm_torchrec.data.preparing.split_file import Facts, read_split
from flm_torchrec.data.preparing.stage_log import ID_KEYS
from flm_torchrec.data.preparing.staging import StagedLog
from flm_torchrec.data.schema import NONE, ItemSchema, Reviews, Schema
from flm_torchrec.data.storage import save_entity


@dataclass(frozen=True, slots=True)
class Known:
    """The users or items, and which of them each interaction has."""

    catalogue: Catalogue
    ids: pa.Array  # of the rows from 1 on
    row: NDArray[np.int32]  # (n,) of the interactions, in the source's order


def split_log(
    schema: Schema,
    catalogues: Mapping[str, Catalogue],
    staged: StagedLog,
    *,
    path: str,  # what messages call the interactions
    split: Path,  # decides, where it is there
) -> tuple[Log, dict[str, Known], Facts]:
    """The interactions with their parts; users and items; and what a split file says of them."""
    names, columns = schema.interactions, staged.columns
    assert names is not None
    known, facts_ids = {}, {}
    for name, catalogue in catalogues.items():
        met = columns.discrete(ID_KEYS[name])
        ids, rows = catalogue.rows(met)
        known[name] = Known(catalogue, ids, rows[met.codes])
        facts_ids[f"{ID_KEYS[name]}_id"] = replace(met, values=met.values.cast(ids.type))
    time = None if names.time is None else columns.array("time")
    users, items = known.get("users"), known.get("items")
    rule = schema.split_rule()
    is_ordered = names.history != NONE or rule.kind == "leave_one_out"
    by_user = None
    if is_ordered and users is not None and time is not None:
        by_user = by_user_time(users.row, time)
    facts = Facts(source_row=staged.source_row(), ids=facts_ids, time=time, by_user=by_user)
    there = split.exists()
    part = read_split(split, rule, facts) if there else split_parts(facts.keys(), rule)
    log = Log(
        path=path,
        names=names,
        staged=staged,
        source_row=facts.source_row,
        user=users and users.row,
        item=items and items.row,
        time=time,
        by_user=by_user,
        part=part,
        num_users=1 + (len(users.ids) if users else 0),
    )
    check_repeats(log)
    return log, known, facts


def write_log(log: Log, known: Mapping[str, Known], fits: Fits, folder: Path) -> dict[str, Any]:
    """Fit all on training and write it; gives what is to be said of it in the folder's meta."""
    meta = {}
    for name in ID_KEYS:
        entity = _entity(log, known[name], fits) if name in known else None
        meta[name] = save_entity(entity, folder, name)
    return meta | write_interactions(log, fits, folder)


def _entity(log: Log, known: Known, fits: Fits) -> Entity:
    schema, size = known.catalogue.schema, len(known.ids) + 1
    is_train = log.part == TRAIN
    is_trained = np.bincount(known.row[is_train], minlength=size)[1:] > 0
    texts = schema.text if isinstance(schema, ItemSchema) else {}
    reviews = {
        name: review_texts(
            log.staged.columns,
            f"text {name}",
            text.most,
            item=known.row,
            time=log.time,
            is_train=is_train,
            num_items=size,
        )
        for name, text in texts.items()
        if isinstance(text, Reviews)
    }
    return build_entity(known.catalogue, known.ids, is_trained, fits, reviews)
