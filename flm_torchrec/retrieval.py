"""Scores from a trained FLM: every item encoded once, users in blocks, any number of ranks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flm_torchrec.data.batch import ItemRows, MaskedText, TextRows
from flm_torchrec.data.collate import Collator
from flm_torchrec.data.dataset import Entity
from flm_torchrec.data.kjt import features_kjt
from flm_torchrec.data.sampling import Sequences, last_windows
from flm_torchrec.trainable import FLMTrain


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; restores the mode it found."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


class Retrieval:
    """Ranking scores for the latest window of users, of data that has users and items.

    Tables may be sharded, so every method is called by all ranks, the same number of times and
    with inputs of the same length; `gather` concatenates a tensor over the ranks.

    Example:
        retrieval = Retrieval(
            model, collator, device=device, rank=0, world_size=1, gather=lambda t: t
        )
        scores = retrieval.scores(np.array([1, 2, 3]), seqs)  # (3, num_items)
    """

    def __init__(
        self,
        model: FLMTrain,
        collator: Collator,
        *,
        device: torch.device,
        rank: int,
        world_size: int,
        gather: Callable[[Tensor], Tensor],
        block: int = 1024,
    ) -> None:
        self.model = model
        self.collator = collator
        self.device = device
        with evaluating(model):
            self.items = self._encode_items(rank, world_size, gather, block)

    def _encode_items(
        self, rank: int, world_size: int, gather: Callable[[Tensor], Tensor], block: int
    ) -> Tensor:
        """-> item rows (num_items, D)"""
        num_items = len(self._catalogue.ids)
        block = min(block, -(-num_items // world_size))
        text, masked = TextRows.none().to(self.device), MaskedText.none().to(self.device)
        parts = []
        for start in range(0, num_items, block * world_size):
            own = np.arange(start + rank * block, start + (rank + 1) * block)
            rows = self._item_rows(np.where(own < num_items, own, 0))
            encoded, _ = self.model.flm.items(rows, text, masked)
            parts.append(gather(encoded.row))
        return torch.cat(parts)[:num_items]

    @property
    def _catalogue(self) -> Entity:
        items = self.collator.dataset.items
        assert items is not None, "there are no items to rank"
        return items

    def _item_rows(self, rows: NDArray[np.int64]) -> ItemRows:
        row = torch.from_numpy(rows)
        return ItemRows(
            row=row,
            features=features_kjt(self._catalogue.columns, rows),
            numbers=torch.from_numpy(self._catalogue.numbers[rows]),
            first=row,
            log_q=torch.zeros(0),
            aligned=row[:0],
        ).to(self.device)

    def users(self, user: NDArray[np.int64], seqs: Sequences) -> Tensor:
        """user (n,) rows -> state after the latest events (n, D)."""
        windows = last_windows(seqs, user, self.collator.window)
        rows = self.collator.user_rows(windows, seqs).to(self.device)
        with evaluating(self.model):
            states = self.model.flm.users(rows, self.items).states
        return states[torch.arange(len(user), device=self.device), rows.num_events]

    def scores(self, user: NDArray[np.int64], seqs: Sequences) -> Tensor:
        """user (n,) rows -> (n, num_items) scores; the unknown item, row 0, has one too."""
        return self.users(user, seqs) @ self.items.T
