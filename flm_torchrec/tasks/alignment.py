"""Alignment: the views of one item lie close in the joint space."""

import math
from itertools import combinations

import torch
from torch import Tensor, nn

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.model import Views
from flm_torchrec.tasks.balance import Gather, no_gather
from flm_torchrec.tasks.contrast import info_nce

# Of the temperature: beyond what is a sensible start, so that no start lies where nothing is
# learned.
_LOWEST, _HIGHEST = 0.005, 2.0


class Alignment(nn.Module):
    """Symmetric InfoNCE between every two item views over the rows `items.aligned` of all ranks,
    which `gather` brings together with their gradient; a row counts where it has both.

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
        aligned = batch.items.aligned
        rows = self.gather(views.items.views[:, aligned].transpose(0, 1)).unbind(1)  # V x (A, D)
        present = self.gather(views.items.present[:, aligned].T.int()).unbind(1)  # V x (A,)
        item = self.gather(batch.items.row[aligned])
        losses = [
            info_nce(
                rows[left], rows[right], self.scale(), (present[left] * present[right]) > 0, item
            )
            for left, right in combinations(range(len(rows)), 2)
        ]
        return torch.stack(losses).mean()
