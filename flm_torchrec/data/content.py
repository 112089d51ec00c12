"""What is known of an item besides who met it, as one row of numbers."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from flm_torchrec.data.dataset import TRAIN, Column, Dataset, Entity
from flm_torchrec.data.sampling import Rows
from flm_torchrec.data.text import Texts

# How far a view's likeness reaches, in mean squared distances of its rows (chosen by four folds of
# ML-100K's warm items). A year tells by its decade, genres by being alike in most of them.
_OF_VECTORS, _OF_FEATURES, _OF_NUMBERS = 1.0, 2.0, 0.2
_MOST_LANDMARKS = 1000
_BLOCK = 4096  # items whose kernel is held at once
_JITTER = 1e-4  # keeps items of the same content apart
# Of a view's squared length: what is the same for all items but for rounding tells nothing.
_LEAST_SPREAD = 1e-9
# A feature of more values, a brand or an author, has too few items a value to tell much.
_MOST_VALUES = 1000


def item_content(dataset: Dataset, texts: NDArray[np.float32], warm: Rows) -> torch.Tensor:
    """texts (names, items, H) vectors -> (items, F) float32, by whose dot products items are alike:
    the mean over views (each text, each vector, all features, all numbers) of a Gaussian kernel, so
    that a regression is a sum of one function of each view.

    F is at most 1,000: the kernel is that of the Nystroem method (Williams and Seeger, 2001) with
    as many of the `warm` items for landmarks, exact where these are all.
    """
    items = dataset.items
    assert items is not None
    views = [(_directions(vectors), _OF_VECTORS) for vectors in (*texts, *items.vectors.values())]
    # What nobody met has no id of its own.
    columns = list(items.columns.values())[items.num_ids :]
    values = [_values(own, len(items.ids)) for own in columns if own.num_embeddings <= _MOST_VALUES]
    if values:
        views.append((_directions(np.concatenate(values, axis=1)), _OF_FEATURES))
    if items.numbers.shape[1]:
        views.append((items.numbers, _OF_NUMBERS))
    place = np.linspace(0, len(warm) - 1, min(len(warm), _MOST_LANDMARKS)).astype(np.int64)
    rows = [(torch.from_numpy(own), reach) for own, reach in views]
    return _nystroem(rows, warm[place], num_items=len(items.ids))


def _nystroem(
    views: Sequence[tuple[torch.Tensor, float]], landmarks: Rows, *, num_items: int
) -> torch.Tensor:
    """Views as rows (items, D) and reach; one that is the same for all landmarks tells nothing."""
    own = torch.from_numpy(landmarks)
    told = []
    for rows, reach in views:
        # In double, around the mean: of rows that lie close together float32 loses the distances.
        mean = rows[own].double().mean(0)
        marks = rows[own].double() - mean
        spread = 2 * marks.square().mean(0).sum()
        if spread > _LEAST_SPREAD * rows[own].double().square().sum(1).mean():
            told.append((rows, mean, marks, reach * spread))
    if not told:
        return torch.zeros(num_items, 0)

    def kernel(of: torch.Tensor | slice) -> torch.Tensor:
        views = [
            (-(torch.cdist(rows[of].double() - mean, marks) ** 2) / reach).exp()
            for rows, mean, marks, reach in told
        ]
        return torch.stack(views).mean(0)

    root = torch.linalg.cholesky(kernel(own) + _JITTER * torch.eye(len(own), dtype=torch.float64))
    out = torch.empty(num_items, len(own))
    for start in range(0, num_items, _BLOCK):
        block = slice(start, start + _BLOCK)
        out[block] = torch.linalg.solve_triangular(root, kernel(block).T, upper=False).T
    return out


def warm_and_cold(dataset: Dataset) -> tuple[Rows, Rows]:
    """The items that training met, and those that it didn't; the unknown one is neither."""
    is_cold = never_met(dataset)
    return np.flatnonzero(~is_cold), 1 + np.flatnonzero(is_cold[1:])


def never_met(dataset: Dataset) -> NDArray[np.bool_]:
    """(items,) has training no interaction with the item? The unknown one counts as never met."""
    interactions, items = dataset.interactions, dataset.items
    is_cold = np.ones(0 if items is None else len(items.ids), dtype=bool)
    if items is not None:
        is_cold[interactions.item[interactions.part == TRAIN]] = False
        is_cold[0] = True
    return is_cold


def has_views(items: Entity | None, text: Texts | None) -> NDArray[np.bool_]:
    """(items,) has an item a view beside its features?"""
    has = np.zeros(0 if items is None else len(items.ids), dtype=bool)
    if items is not None:
        for vectors in items.vectors.values():
            has |= (vectors != 0).any(1)
        if text is not None and text.num_names:
            rows = text.row(np.arange(text.num_names)[:, None], np.arange(len(has)))
            has |= (text.table.length[rows] > 0).any(0)
    return has


def _directions(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(length, np.float32(1e-12))


def _values(column: Column, num_rows: int) -> NDArray[np.float32]:
    """(num_rows, num_embeddings) 1 where the row has the value; the unknown value is none."""
    table = np.zeros((num_rows, column.num_embeddings), dtype=np.float32)
    table[column.owners(), column.values] = 1.0
    table[:, 0] = 0.0
    return table
