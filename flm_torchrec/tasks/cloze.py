"""Attribute cloze: a hidden attribute of an item is told from all else that is known of it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.model import Views


class ClozeTask(nn.Module):
    """The values of an attribute from an item's fused row, in which it is hidden: where an item
    may have `several`, a question of each value, else one softmax over them.

    The loss is the mean over the C items; where several, of the sum over the values.
    """

    def __init__(self, *, dim: int, num_values: int, several: bool) -> None:
        super().__init__()
        self.several = several
        self.score = nn.Sequential(
            # Fused rows start small.
            nn.LayerNorm(dim),
            nn.Linear(dim, dim),
            nn.GELU(),
            nn.Linear(dim, num_values),
        )

    def forward(self, views: Views, batch: FLMBatch) -> Tensor:
        assert views.items is not None
        assert views.items.hidden is not None
        assert batch.items is not None
        target, score = batch.items.cloze.target, self.score(views.items.hidden)  # (C, A)
        # Value a of the vocabulary stands at place a - 1; 0 is none.
        if not self.several:
            loss = F.cross_entropy(score, target[:, 0] - 1, reduction="none", ignore_index=-1)
        else:
            is_value = torch.zeros_like(F.pad(score, (1, 0))).scatter(1, target, 1.0)[:, 1:]
            loss = F.binary_cross_entropy_with_logits(score, is_value, reduction="none").sum(1)
        return loss.sum() / max(1, target.shape[0])
