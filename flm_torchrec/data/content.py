"""What is known of an item besides who met it, as one row of numbers."""

import numpy as np
from numpy.typing import NDArray

from flm_torchrec.data.dataset import TRAIN, Column, Dataset, Entity
from flm_torchrec.data.sampling import Rows
from flm_torchrec.data.text import Texts

# Of a feature against a text or vector, whose rows have length 1 (chosen on ML-100K's cold items).
_FEATURE = 0.3
# A feature of more values, a brand or an author, has too few items a value to tell much.
_MOST_VALUES = 1000


def item_content(dataset: Dataset, texts: NDArray[np.float32]) -> NDArray[np.float32]:
    """texts (names, items, H) vectors -> (items, F): texts and vectors at length 1, the values of
    each feature, the numbers."""
    items = dataset.items
    assert items is not None
    parts = [items.numbers, *map(_directions, texts), *map(_directions, items.vectors.values())]
    # What nobody met has no id of its own.
    for column in list(items.columns.values())[items.num_ids :]:
        if column.num_embeddings <= _MOST_VALUES:
            parts.append(_FEATURE * _values(column, len(items.ids)))
    return np.concatenate(parts, axis=1)


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
