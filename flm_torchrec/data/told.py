"""What interactions told, as numbers: labels of edges, and inputs of the events of a history."""

import numpy as np
from numpy.typing import NDArray

from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.predicate import Comparison, parse_predicate
from flm_torchrec.data.schema import ALWAYS, InteractionSchema

_LONGEST = 20.0  # log of 15 years in seconds


def always_labels(dataset: Dataset) -> list[int]:
    """Places of the labels that hold for every interaction: their negatives must be sampled."""
    schema = dataset.schema.interactions
    declared = {} if schema is None else schema.labels
    return [t for t, label in enumerate(declared.values()) if label.value == ALWAYS]


def given_label(schema: InteractionSchema, name: str) -> str | None:
    """The binary label that holds exactly where a label's `where` does, if one says so in the same
    words; a column without a predicate holds where it equals 1."""
    where = schema.labels[name].where
    if where is None:
        return None
    for other, label in schema.labels.items():
        if label.kind != "binary" or label.value == ALWAYS or other == name:
            continue
        said = label.value
        holds = (Comparison(other, "==", 1.0),) if said is None else parse_predicate(said)
        if set(holds) == set(parse_predicate(where)):
            return other
    return None


def one_class_labels(dataset: Dataset, rows: NDArray[np.int64]) -> dict[str, str]:
    """The binary labels that are one class in all the rows (n,), each with what it is there: what
    is to be told apart does not occur, so no AUC is defined."""
    schema = dataset.schema.interactions
    found: dict[str, str] = {}
    for name, label in ({} if schema is None else schema.labels).items():
        if label.kind != "binary" or label.value == ALWAYS:
            continue
        values = dataset.interactions.labels[name][rows]
        known = values[np.isfinite(values)]
        if not len(known):
            found[name] = f"is missing in all {len(rows)} rows"
        elif known.min() == known.max():
            found[name] = f"is {known[0]:g} in all {len(known)} rows that have it"
    return found


def scaled_labels(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """rows (n,) of the interactions -> (n, F) each label within [-1, 1], or of classes its place
    among those of training; NaN where missing, or no class of training."""
    columns, schema = [], dataset.schema.interactions
    for name, label in dataset.interactions.labels.items():
        if schema is not None and schema.labels[name].kind == "multiclass":
            levels = dataset.levels[name]
            place = np.searchsorted(levels, label[rows]).clip(max=len(levels) - 1)
            columns.append(np.where(levels[place] == label[rows], place, np.nan))
            continue
        if name in dataset.moments:
            middle, half = dataset.moments[name][0], 3 * dataset.moments[name][1]
        else:
            levels = dataset.levels.get(name, np.array([0.0, 1.0], dtype=np.float32))
            middle, half = (levels[0] + levels[-1]) / 2, (levels[-1] - levels[0]) / 2
        columns.append(((label[rows] - middle) / max(half, 1e-6)).clip(-1, 1))
    if not columns:
        return np.zeros((len(rows), 1), dtype=np.float32)
    return np.stack(columns, axis=1).astype(np.float32)


def scaled_gaps(time: NDArray[np.int64], num_events: NDArray[np.int64]) -> NDArray[np.float32]:
    """time (n,) in seconds of the events of U windows, num_events (U,) in each -> (n,) the log of
    the time between an event and the one before it, about 0..1; 0 for the first of a window."""
    gap = np.zeros(len(time), dtype=np.float32)
    # In place: a batch of a log holds thousands of windows.
    np.subtract(time[1:], time[:-1], out=gap[1:], casting="unsafe")
    begin = np.cumsum(num_events) - num_events
    gap[begin[num_events > 0]] = 0
    np.abs(gap, out=gap)
    np.log1p(gap, out=gap)
    gap /= _LONGEST
    return gap


def label_weights(
    dataset: Dataset,
    rows: NDArray[np.int64],
    is_real: NDArray[np.bool_],
    everyone: NDArray[np.int64],
    world_size: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """rows (E,) of this rank, is_real (E,), those of all ranks (n,) -> labels (E, T), 0 where
    missing, and their weights, which add up to the world size over all ranks."""
    columns = dataset.interactions.labels
    labels = np.zeros((len(rows), len(columns)), dtype=np.float32)
    weights = np.zeros_like(labels)
    for t, column in enumerate(columns.values()):
        values = column[rows]
        is_there = is_real & np.isfinite(values)
        count = np.isfinite(column[everyone]).sum()
        labels[:, t] = np.where(is_there, values, 0.0)
        weights[:, t] = is_there * (world_size / max(1, count))
    return labels, weights
