"""Alignment: the views of one item lie close in the joint space."""

import math
from itertools import combinations

import torch
from torch import Tensor, nn

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.model import Views
from flm_torchrec.tasks.contrast import info_nce


class Alignment(nn.Module):
    """Symmetric InfoNCE between every two item views over the rows `items.aligned`; a row counts
    where it has both.

    The temperature is learned within [0.01, 1].
    """

    def __init__(self, *, temperature: float = 0.1) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self, views: Views, batch: FLMBatch) -> Tensor:
        assert views.items is not None
        assert batch.items is not None
        scale = self.log_scale.clamp(0.0, math.log(100.0)).exp()
        rows = views.items.views[:, batch.items.aligned]  # (V, A, D)
        present = views.items.present[:, batch.items.aligned]  # (V, A)
        losses = [
            info_nce(rows[left], rows[right], scale, present[left] & present[right])
            for left, right in combinations(range(rows.shape[0]), 2)
        ]
        return torch.stack(losses).mean()
