"""Scores from a trained FLM: every item encoded once, users in blocks, any number of ranks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flm_torchrec.data.batch import ItemRows, MaskedText, TextRows, UserRows
from flm_torchrec.data.collate import Collator
from flm_torchrec.data.dataset import Entity
from flm_torchrec.data.kjt import features_kjt
from flm_torchrec.data.sampling import Sequences, last_windows
from flm_torchrec.model import Items
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


def _catalogue(collator: Collator) -> Entity:
    items = collator.dataset.items
    assert items is not None, "there are no items to rank"
    return items


def encode_items(
    model: FLMTrain, collator: Collator, rows: NDArray[np.int64], device: torch.device
) -> Items:
    """Items by their rows (n,) in the catalogue, with all their views; texts are read from the
    cache. Tables may be sharded: called by all ranks, with equally many rows."""
    items, row = _catalogue(collator), torch.from_numpy(rows)
    batch = ItemRows(
        row=row,
        features=features_kjt(items.columns, rows),
        ids=collator.id_bags and collator.id_bags.of_items(rows),
        numbers=torch.from_numpy(items.numbers[rows]),
        first=row,
        log_q=torch.zeros(0),
        aligned=row[:0],
    ).to(device)
    text, masked = TextRows.none().to(device), MaskedText.none().to(device)
    return model.flm.items(batch, text, masked)[0]


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
            self.items, self.next_rows = self._encode_items(rank, world_size, gather, block)

    def _encode_items(
        self, rank: int, world_size: int, gather: Callable[[Tensor], Tensor], block: int
    ) -> tuple[Tensor, Tensor | None]:
        """-> item rows (num_items, D), and those of a low-rank linear path (num_items, r)"""
        num_items = len(_catalogue(self.collator).ids)
        block = min(block, -(-num_items // world_size))
        parts, next_parts = [], []
        for start in range(0, num_items, block * world_size):
            own = np.arange(start + rank * block, start + (rank + 1) * block)
            rows = np.where(own < num_items, own, 0)
            made = encode_items(self.model, self.collator, rows, self.device)
            parts.append(gather(made.row))
            if made.next_row is not None:
                next_parts.append(gather(made.next_row))
        next_rows = torch.cat(next_parts)[:num_items] if next_parts else None
        return torch.cat(parts)[:num_items], next_rows

    def users(self, user: NDArray[np.int64], seqs: Sequences) -> Tensor:
        """user (n,) rows -> state after the latest events (n, D)."""
        return self._states(self._user_rows(user, seqs))

    def scores(self, user: NDArray[np.int64], seqs: Sequences) -> Tensor:
        """user (n,) rows -> (n, num_items) scores; the unknown item, row 0, has one too. Items of
        other domains than a user's are at -inf."""
        rows = self._user_rows(user, seqs)
        scores = self._states(rows) @ self.items.T
        linear, low_rank = self.model.flm.linear, self.model.flm.low_rank
        with evaluating(self.model):
            if linear is not None:
                scores = scores + linear.catalogue(rows)
            if low_rank is not None:
                assert self.next_rows is not None
                scores = scores + low_rank.catalogue(rows, self.items, self.next_rows)
        domains = self.collator.dataset.domains
        if domains is None:
            return scores
        is_other = torch.from_numpy(domains.is_other(user))
        return scores.masked_fill(is_other.to(self.device), -torch.inf)

    def _user_rows(self, user: NDArray[np.int64], seqs: Sequences) -> UserRows:
        windows = last_windows(seqs, user, self.collator.window)
        return self.collator.user_rows(windows, seqs).to(self.device)

    def _states(self, rows: UserRows) -> Tensor:
        """-> (n, D)"""
        with evaluating(self.model):
            states = self.model.flm.users(rows, self.items).states
        return states[torch.arange(len(states), device=self.device), rows.num_events]
