"""A plain DLRM on TorchRec, written by hand beside the FLM: what anybody would start from.

Bottom MLP over the numbers, one table a feature, all pairwise dot products, top MLP with one logit
a label (Naumov et al., 2019; torchrec.models.dlrm has one label only).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor
from torchrec.models.dlrm import DenseArch, InteractionArch, OverArch, SparseArch

from flm_torchrec.data.batch import TensorBatch


@dataclass(frozen=True)
class Samples(TensorBatch):
    """B samples."""

    dense: Tensor  # (B, number of numbers)
    sparse: KeyedJaggedTensor  # stride B
    labels: Tensor  # (B, T); nan = missing


class DLRMTrain(nn.Module):
    """Samples in, (losses, logits) out."""

    def __init__(
        self,
        rows: Mapping[str, int],
        *,
        num_numbers: int,
        num_labels: int,
        dim: int,
        bottom: list[int],
        top: list[int],
    ) -> None:
        super().__init__()
        tables = [
            EmbeddingBagConfig(
                name=f"t_{name}",
                embedding_dim=dim,
                num_embeddings=count,
                feature_names=[name],
                init_fn=partial(nn.init.normal_, std=0.02),
            )
            for name, count in rows.items()
        ]
        ebc = EmbeddingBagCollection(tables=tables, device=torch.device("meta"))
        self.sparse = SparseArch(ebc)
        self.dense = DenseArch(num_numbers, [*bottom, dim])
        self.interaction = InteractionArch(len(rows))
        pairs = len(rows) * (len(rows) + 1) // 2
        self.over = OverArch(dim + pairs, [*top, num_labels])

    def forward(self, samples: Samples) -> tuple[Tensor, Tensor]:
        dense = self.dense(samples.dense)
        logits = self.over(self.interaction(dense, self.sparse(samples.sparse)))
        labels = samples.labels
        is_there = labels.isfinite()
        loss = F.binary_cross_entropy_with_logits(
            logits, labels.nan_to_num(), weight=is_there.float(), reduction="none"
        ).sum(0) / is_there.sum(0).clamp(min=1)
        return loss, logits.detach()
