"""What interactions told, as numbers: labels of edges, and inputs of the events of a history."""

import numpy as np
from numpy.typing import NDArray

from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.schema import ALWAYS


def always_labels(dataset: Dataset) -> list[int]:
    """Places of the labels that hold for every interaction: their negatives must be sampled."""
    schema = dataset.schema.interactions
    declared = {} if schema is None else schema.labels
    return [t for t, label in enumerate(declared.values()) if label.value == ALWAYS]


def scaled_labels(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """rows (n,) of the interactions -> (n, F) each label within [-1, 1], 0 where missing."""
    columns = []
    for name, label in dataset.interactions.labels.items():
        if name in dataset.moments:
            middle, half = dataset.moments[name][0], 3 * dataset.moments[name][1]
        else:
            levels = dataset.levels.get(name, np.array([0.0, 1.0], dtype=np.float32))
            middle, half = (levels[0] + levels[-1]) / 2, (levels[-1] - levels[0]) / 2
        columns.append(np.nan_to_num((label[rows] - middle) / max(half, 1e-6)).clip(-1, 1))
    if not columns:
        return np.zeros((len(rows), 1), dtype=np.float32)
    return np.stack(columns, axis=1).astype(np.float32)


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
