"""Alignment: the views of one item, and a user and an item met, lie close in the joint space."""

import math
from itertools import combinations

import torch
from torch import Tensor, nn

from flm_torchrec.data.batch import FLMBatch, ItemRows
from flm_torchrec.model import Items, Users, Views
from flm_torchrec.tasks.balance import Gather, no_gather
from flm_torchrec.tasks.contrast import info_nce

# Of the temperature: beyond what is a sensible start, so that no start lies where nothing is
# learned.
_LOWEST, _HIGHEST = 0.005, 2.0


class Alignment(nn.Module):
    """Symmetric InfoNCE between every two item views over the rows `items.aligned`, their mean,
    plus that between user and item over the edges `edges.aligned`.

    Rows are those of all ranks, which `gather` brings together with their gradient. An item counts
    for two views where it has both. Neither the rows of one item nor those of one user are
    negatives of each other: what else a user met lies close to them too.

    The temperature is learned within bounds that a sigmoid keeps: unlike a clamp it can come back.
    """

    def __init__(self, *, temperature: float = 0.1, gather: Gather = no_gather) -> None:
        super().__init__()
        share = math.log(temperature / _LOWEST) / math.log(_HIGHEST / _LOWEST)
        self.temperature_logit = nn.Parameter(torch.tensor(math.log(share / (1 - share))))
        self.gather = gather

    def scale(self) -> Tensor:
        """() 1 / temperature"""
        span = math.log(_HIGHEST / _LOWEST)
        return (-math.log(_LOWEST) - span * self.temperature_logit.sigmoid()).exp()

    def forward(self, views: Views, batch: FLMBatch) -> Tensor:
        assert views.items is not None
        assert batch.items is not None
        loss = views.items.row.new_zeros(())
        if views.items.views.shape[0] > 1:
            loss = loss + self._of_views(views.items, batch.items)
        if views.users is not None and batch.users is not None and batch.edges.aligned.shape[0]:
            loss = loss + self._of_edges(views.users, views.items, batch)
        return loss

    def _of_views(self, items: Items, batch: ItemRows) -> Tensor:
        aligned = batch.aligned
        rows = self.gather(items.views[:, aligned].transpose(0, 1)).unbind(1)  # V x (A, D)
        present = self.gather(items.present[:, aligned].T.int()).unbind(1)  # V x (A,)
        item = self.gather(batch.row[aligned])
        losses = [
            info_nce(
                rows[left], rows[right], self.scale(), (present[left] * present[right]) > 0, [item]
            )
            for left, right in combinations(range(len(rows)), 2)
        ]
        return torch.stack(losses).mean()

    def _of_edges(self, users: Users, items: Items, batch: FLMBatch) -> Tensor:
        assert batch.users is not None
        assert batch.items is not None
        edges = batch.edges
        is_there = self.gather((edges.aligned >= 0).int()) > 0
        aligned = edges.aligned.clamp(min=0)
        user, item = edges.user[aligned], edges.item[aligned]
        states = self.gather(users.states[user, edges.step[aligned]])  # (B, D)
        rows = self.gather(items.row[item])  # (B, D)
        same = self.gather(batch.users.row[user]), self.gather(batch.items.row[item])
        return info_nce(states, rows, self.scale(), is_there, same)
