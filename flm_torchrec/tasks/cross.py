"""Cross layers: how the features of an edge act together."""

import torch
from torch import Tensor, nn
from torchrec.modules.crossnet import LowRankCrossNet


class FM(nn.Module):
    """The dot products of all pairs: the terms of a factorization machine (Rendle, 2010), as a
    DLRM uses them (Naumov et al., 2019).

    Example:
        cross = FM(num_vectors=28)
        cross(torch.randn(4096, 28, 16)).shape  # (4096, cross.width), width 378
    """

    pair: Tensor  # (width,) places in the flattened (F, F)

    def __init__(self, *, num_vectors: int) -> None:
        super().__init__()
        first, second = torch.triu_indices(num_vectors, num_vectors, offset=1)
        self.register_buffer("pair", first * num_vectors + second, persistent=False)
        self.width = len(first)

    def forward(self, vectors: Tensor) -> Tensor:
        """vectors (E, F, D) -> (E, F (F - 1) / 2)"""
        products = vectors @ vectors.transpose(1, 2)
        # Several times faster backwards than indexing by two tensors.
        return products.flatten(1).index_select(1, self.pair)


class DCNv2(nn.Module):
    """Low-rank cross layers over all entries of all vectors (Wang et al., 2021)."""

    def __init__(self, *, num_vectors: int, dim: int, layers: int = 2, rank: int = 32) -> None:
        super().__init__()
        self.width = num_vectors * dim
        self.layers = LowRankCrossNet(self.width, layers, low_rank=rank)

    def forward(self, vectors: Tensor) -> Tensor:
        """vectors (E, F, D) -> (E, F D)"""
        return self.layers(vectors.flatten(1))
