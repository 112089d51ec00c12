"""Attribute cloze: items of which one attribute is hidden, to be told from all else."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from flm_torchrec.data.batch import ClozeRows, ItemRows
from flm_torchrec.data.dataset import Column, Entity
from flm_torchrec.data.kjt import features_kjt, joined

_HELD_OUT = 0.1  # of the items that have the attribute
_SEED = 0

Rows = NDArray[np.int64]


class AttributeCloze:
    """`count` items a rank that have a value of `attribute`, a categorical or multi feature.

    A tenth of them is held out: their attribute is never asked for in training.

    Example:
        cloze = AttributeCloze(dataset.items, "genres", count=256)
        items = cloze.behind(items, cloze.draw(rng, rank=0, world_size=1))
    """

    def __init__(self, items: Entity, attribute: str, *, count: int) -> None:
        self.items = items
        self.attribute = attribute
        self.count = count
        self.targets = _padded(items.columns[attribute])
        has_it = np.flatnonzero((self.targets > 0).any(1))
        rng = np.random.default_rng(_SEED)
        self.held_out = np.sort(rng.choice(has_it, round(_HELD_OUT * len(has_it)), replace=False))
        self.pool = np.setdiff1d(has_it, self.held_out)
        self._columns = _without(items.columns, {attribute})

    def draw(self, rng: np.random.Generator, *, rank: int, world_size: int) -> Rows:
        """(count,) this rank's part of what all ranks draw from an equal `rng`"""
        return rng.choice(self.pool, size=self.count * world_size)[rank::world_size]

    def behind(self, items: ItemRows, rows: Rows) -> ItemRows:
        """A batch's items with those of the catalogue's `rows` (C,) behind them, of which the
        attribute is hidden: its bags are empty."""
        numbers = np.concatenate([items.numbers.numpy(), self.items.numbers[rows]])
        return replace(
            items,
            features=joined(items.features, features_kjt(self._columns, rows)),
            numbers=torch.from_numpy(numbers),
            cloze=self._rows(rows),
        )

    def _rows(self, rows: Rows) -> ClozeRows:
        return ClozeRows(item=torch.from_numpy(rows), target=torch.from_numpy(self.targets[rows]))

    def alone(self, rows: Rows, *, hide_id: bool) -> ItemRows:
        """Items (C,) as the only ones of a batch; with `hide_id` nobody knows which they are."""
        ids = list(self.items.columns)[: self.items.num_ids if hide_id else 0]
        columns = _without(self._columns, set(ids))
        none = torch.zeros(0, dtype=torch.int64)
        return ItemRows(
            row=none,
            features=features_kjt(columns, rows),
            numbers=torch.from_numpy(self.items.numbers[rows]),
            first=none,
            log_q=torch.zeros(0),
            aligned=none,
            cloze=self._rows(rows),
        )


def _padded(column: Column) -> Rows:
    """(rows, P) the values of each row, 0 = none."""
    if column.offsets is None:
        return column.values.astype(np.int64)[:, None]
    length = np.diff(column.offsets)
    padded = np.zeros((len(length), max(1, int(length.max(initial=0)))), dtype=np.int64)
    padded[np.arange(padded.shape[1]) < length[:, None]] = column.values[: column.offsets[-1]]
    return padded


def _without(columns: dict[str, Column], names: set[str]) -> dict[str, Column]:
    """The columns, those of `names` without any value."""
    return {
        name: Column(
            values=column.values[:0],
            offsets=np.zeros_like(column.bounds),
            num_embeddings=column.num_embeddings,
        )
        if name in names
        else column
        for name, column in columns.items()
    }
