"""FM and DeepFM in plain torch."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn


def padded(values: sparse.csr_matrix) -> NDArray[np.int64]:
    """(rows, longest) the columns of each row's entries from 1, 0 behind them."""
    lengths = np.diff(values.indptr)
    table = np.zeros((len(lengths), max(1, int(lengths.max()))), np.int64)
    table[np.arange(table.shape[1]) < lengths[:, None]] = values.indices + 1
    return table


class DeepFM(nn.Module):
    """Weights and pairwise products of fields, and layers over them (Guo et al., 2017); without
    `hidden` a factorisation machine (Rendle, 2010).

    A field is a bag of values: inputs are one (n, most values) a field, 0 = none.
    """

    def __init__(
        self, sizes: Sequence[int], *, width: int, hidden: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))
        self.weights = nn.ModuleList(nn.Embedding(size, 1, padding_idx=0) for size in sizes)
        self.factors = nn.ModuleList(nn.Embedding(size, width, padding_idx=0) for size in sizes)
        for table in [*self.weights, *self.factors]:
            assert isinstance(table, nn.Embedding)
            nn.init.normal_(table.weight, std=0.01)
        layers: list[nn.Module] = []
        ends = [len(sizes) * width, *hidden]
        for size_in, size_out in pairwise(ends):
            layers += [nn.Linear(size_in, size_out), nn.ReLU(), nn.Dropout(dropout)]
        self.deep = nn.Sequential(*layers, nn.Linear(ends[-1], 1)) if hidden else None

    def forward(self, fields: Sequence[Tensor]) -> Tensor:
        """-> logits (n,)"""
        weights = [table(f).sum((1, 2)) for table, f in zip(self.weights, fields, strict=True)]
        rows = [table(f).sum(1) for table, f in zip(self.factors, fields, strict=True)]
        factors = torch.stack(rows, dim=1)  # (n, fields, width)
        products = (factors.sum(1).square() - factors.square().sum(1)).sum(1) / 2
        logits = self.bias + torch.stack(weights).sum(0) + products
        if self.deep is not None:
            logits = logits + self.deep(factors.flatten(1)).squeeze(1)
        return logits
