"""From the staged interactions to the arrays of `Interactions`, written one at a time: no two
columns of a large table are in memory together."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flm_torchrec.data.dataset import TRAIN, Column
from flm_torchrec.data.preparing.fit_features import fit_features, reordered
from flm_torchrec.data.preparing.fits import Fits
from flm_torchrec.data.preparing.labels import Labels
from flm_torchrec.data.preparing.staging import StagedLog
from flm_torchrec.data.schema import ALL, NONE, Feature, InteractionSchema
from flm_torchrec.data.storage import ARRAYS, save_array, save_column
from flm_torchrec.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The interactions with the rows of users and items known, in the source's order."""

    path: str  # what messages call the table
    names: InteractionSchema
    staged: StagedLog
    source_row: NDArray[np.int64]  # (n,)
    user: NDArray[np.int32] | None  # (n,) rows
    item: NDArray[np.int32] | None  # (n,) rows
    time: NDArray[np.float64] | None  # (n,) seconds
    by_user: NDArray[np.int64] | None  # (n,) the order by user and time
    part: NDArray[np.int8]  # (n,)
    num_users: int  # rows, the unknown one included

    @property
    def num_rows(self) -> int:
        """The interactions, without bad rows."""
        return len(self.source_row)

    def is_true(self, name: str, text: str) -> NDArray[np.bool_]:
        """(n,) where the predicate that was staged as `name` holds."""
        if text in (ALL, NONE):
            return np.full(self.num_rows, text == ALL)
        return self.staged.columns.array(name)


def check_repeats(log: Log) -> None:
    """Raise where a user meets an item twice though the schema rules it out."""
    if log.names.repeats or log.user is None or log.item is None:
        return
    rows = first_repetition(log.user, log.item)
    if rows is None:
        return
    first, second = (log.source_row[row] + 1 for row in rows)
    raise UserError(
        f"{log.path}: data row {second}, column '{log.names.item}': this user met this item in "
        f"data row {first} already, but schema.yaml says interactions.repeats: false"
    )


def first_repetition(user: NDArray[np.int32], item: NDArray[np.int32]) -> tuple[int, int] | None:
    """Two rows of the same user and item, in file order; of the least user and item that repeat."""
    key = user.astype(np.int64) * (int(item.max(initial=0)) + 1) + item
    ordered = np.sort(key)
    if not (ordered[1:] == ordered[:-1]).any():
        return None
    order = np.argsort(key, kind="stable")  # only here: a sort alone takes half the time
    place = int(np.argmax(np.diff(key[order]) == 0))
    first, second = order[place : place + 2].tolist()
    return first, second


def write_interactions(log: Log, fits: Fits, folder: Path) -> dict[str, Any]:
    """Write all arrays into the prepared folder; gives what is to be said of them in its meta."""
    zeros = np.zeros(log.num_rows, np.int32)
    order = log.by_user if log.names.order == "by_user" else None

    def put(name: str, values: NDArray) -> None:
        save_array(folder, name, values if order is None else values[order])

    for name, values in (("user", log.user), ("item", log.item), ("time", log.time)):
        values = zeros if values is None else values if order is None else values[order]
        save_array(folder, name, np.floor(values).astype(np.int64))
    put("source_row", log.source_row)
    put("part", log.part)
    put("positive", log.is_true("positive", log.names.positives))
    for name, values in histories(log).items():
        save_array(folder, name, values)
    labels = Labels(log.path, log.part == TRAIN)
    for place, (name, label) in enumerate(log.names.labels.items()):
        put(f"label {place}", labels.fit(log.staged.columns, name, label, fits))
    return {
        "labels": list(log.names.labels),
        "levels": {name: levels.tolist() for name, levels in labels.levels.items()},
        "moments": labels.moments,
        "context": _write_context(log, order, fits, folder),
    }


def histories(log: Log) -> dict[str, NDArray[np.int64]]:
    """`events`, `user_offsets` and `before`."""
    is_event = log.is_true("history", log.names.history)
    if log.names.history == NONE or log.user is None or log.by_user is None:
        nothing = np.zeros(0, np.int64)
        offsets = np.zeros(log.num_users + 1, np.int64)
        before = np.zeros(log.num_rows, np.int64)
        return {"events": nothing, "user_offsets": offsets, "before": before}
    # Sorted by user, no interaction needs a time: what ties keeps the order of the source.
    time = log.time if log.names.order == "by_log" else None
    return histories_of(log.user, time, is_event, log.by_user, num_users=log.num_users)


def histories_of(
    user: NDArray[np.integer],
    time: NDArray | None,
    is_event: NDArray[np.bool_],
    by_user: NDArray[np.int64],
    *,
    num_users: int,
) -> dict[str, NDArray[np.int64]]:
    """`events`, `user_offsets` and `before` of interactions (n,), of which some are events.

    `by_user` (n,) is their order by user and time. Without times they are to be stored in it; with
    them they stay as they are, and before one stands only what came strictly earlier.
    """
    user, is_event = user[by_user], is_event[by_user]
    events = np.flatnonzero(is_event)
    counts = np.bincount(user[events], minlength=num_users)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    before = np.cumsum(is_event) - is_event - offsets[user]
    if time is not None:
        # As many as the first of those at that time has.
        time = time[by_user]
        is_new = np.r_[True, (user[1:] != user[:-1]) | (time[1:] != time[:-1])]
        first = np.maximum.accumulate(np.where(is_new, np.arange(len(user)), 0))
        in_order = before[first]
        before[by_user] = in_order
        events = by_user[events]
    return {"events": events, "user_offsets": offsets, "before": before}


def _features(log: Log, fits: Fits) -> Iterator[tuple[str, Any]]:
    is_train = log.part == TRAIN
    return fit_features(log.staged.columns, log.names.context, is_train, fits, "context")


def _width(log: Log, features: dict[str, Feature]) -> int:
    """How many numbers the context has."""
    vectors = [name for name, feature in features.items() if feature.kind == "vector"]
    numeric = sum(feature.kind == "numeric" for feature in features.values())
    return numeric + sum(log.staged.columns.width(f"feature {name}") for name in vectors)


def _write_context(
    log: Log, order: NDArray[np.int64] | None, fits: Fits, folder: Path
) -> dict[str, int]:
    """Write columns and numbers; name -> rows of the table of each column.

    What has one value a row is written side by side, so that a row lies in one place.
    """
    features = log.names.context

    def matrix(name: str, width: int, dtype: type) -> np.memmap:
        path, shape = folder / f"interactions {name}.npy", (log.num_rows, width)
        return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)

    numbers = matrix("numbers", _width(log, features), np.float32)
    singles = matrix("context", num_singles(features), np.int32)
    sizes: dict[str, int] = {}
    first = place = 0
    for name, found in _features(log, fits):
        if not isinstance(found, Column):
            block = found.reshape(log.num_rows, -1)
            stop = first + block.shape[1]
            numbers[:, first:stop] = block if order is None else block[order]
            first = stop
            continue
        column = found if order is None else reordered(found, order)
        if column.offsets is None:
            singles[:, place] = column.values
            place += 1
        else:
            save_column(folder, f"context {name}", column)
        sizes[name] = column.num_embeddings
    numbers.flush()
    singles.flush()
    return sizes


def num_singles(features: dict[str, Feature]) -> int:
    """How many of the features' columns have one value a row."""
    categorical = [f for f in features.values() if f.kind == "categorical"]
    bucketed = [f for f in features.values() if f.buckets is not None]
    return len(bucketed) + sum(1 if f.hash is None else f.hash.ways for f in categorical)


def write_no_interactions(folder: Path) -> dict[str, Any]:
    """Write those of a data set that is only a corpus."""
    arrays = dict.fromkeys(ARRAYS, np.zeros(0, np.int64))
    arrays |= {"part": np.zeros(0, np.int8), "positive": np.zeros(0, np.bool_)}
    arrays |= {"numbers": np.zeros((0, 0), np.float32), "user_offsets": np.zeros(2, np.int64)}
    arrays |= {"context": np.zeros((0, 0), np.int32)}
    for name, array in arrays.items():
        save_array(folder, name, array)
    return {"labels": [], "levels": {}, "moments": {}, "context": {}}
