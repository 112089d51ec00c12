"""The view of vectors that were made elsewhere: images, audio, another model's embeddings."""

import torch
from torch import Tensor, nn


class VectorView(nn.Module):
    """Given vectors, brought to the joint width.

    Example:
        view = VectorView(torch.randn(1683, 512), dim=64)
        rows, has_vector = view(item_rows)  # (M, 64), (M,)
    """

    vectors: Tensor  # (num_items, d), 0 = missing

    def __init__(self, vectors: Tensor, *, dim: int) -> None:
        super().__init__()
        # Their unit is unknown: entries of size 1 start as small as the rows of tables.
        is_there = (vectors != 0).any(1)
        there = vectors[is_there].float()
        self.unit = float(there.square().mean().sqrt()) if is_there.any() else 1.0
        self.register_buffer("vectors", vectors.float() / self.unit, persistent=False)
        width = vectors.shape[1]
        self.project = nn.Linear(width, dim)
        nn.init.normal_(self.project.weight, std=0.02 / width**0.5)
        nn.init.zeros_(self.project.bias)

    def append(self, vectors: Tensor) -> None:
        """Those (n, d) of items that came later, behind the others and in their unit."""
        more = (vectors.float() / self.unit).to(self.vectors.device)
        self.vectors = torch.cat([self.vectors, more])

    def forward(self, item: Tensor) -> tuple[Tensor, Tensor]:
        """item (M,) rows of the catalogue -> (M, dim), which of them have a vector (M,) bool."""
        vectors = self.vectors[item]
        return self.project(vectors), (vectors != 0).any(1)
