"""Several views of the same rows become one vector a row."""

import torch
from torch import Tensor, nn


class Fusion(nn.Module):
    """Base: a mean of the views that are present, with weights that add up to 1.

    In training each view is hidden at random, so that any subset of views can score; a row's last
    present view is never hidden.
    """

    def __init__(self, *, num_views: int, dim: int, view_dropout: float = 0.0) -> None:
        super().__init__()
        self.num_views = num_views
        self.dim = dim
        self.view_dropout = view_dropout

    def logits(self, views: Tensor) -> Tensor:
        """(V, M, D) -> (M, V) unnormalised log weights."""
        raise NotImplementedError

    def forward(self, views: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """views (V, M, D), present (V, M) bool -> fused (M, D), weights (M, V)."""
        if self.training and self.view_dropout > 0:
            hidden = self.view_dropout > torch.rand_like(present.T, dtype=views.dtype).T
            kept = present & ~hidden
            present = torch.where(kept.any(0), kept, present)
        return self.of_present(views, present)

    def of_present(self, views: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The same with no view hidden: a row is that of its present views alone."""
        # A finite floor instead of -inf: a row without any view gets weight 0, not NaN.
        logits = self.logits(views * present[:, :, None]).masked_fill(~present.T, -1e4)
        weights = logits.softmax(1) * present.T
        return torch.einsum("mv,vmd->md", weights, views), weights


class MeanFusion(Fusion):
    """Every present view counts the same."""

    def logits(self, views: Tensor) -> Tensor:
        """(V, M, D) -> (M, V)"""
        return views.new_zeros(views.shape[1], self.num_views)


class WeightedFusion(Fusion):
    """One learned weight a view."""

    def __init__(self, *, num_views: int, dim: int, view_dropout: float = 0.0) -> None:
        super().__init__(num_views=num_views, dim=dim, view_dropout=view_dropout)
        self.weight = nn.Parameter(torch.zeros(num_views))

    def logits(self, views: Tensor) -> Tensor:
        """(V, M, D) -> (M, V)"""
        return self.weight.expand(views.shape[1], -1)


class GatedFusion(Fusion):
    """Weights that each row's views choose together; they start equal."""

    def __init__(self, *, num_views: int, dim: int, view_dropout: float = 0.0) -> None:
        super().__init__(num_views=num_views, dim=dim, view_dropout=view_dropout)
        self.gate = nn.Linear(num_views * dim, num_views)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def logits(self, views: Tensor) -> Tensor:
        """(V, M, D) -> (M, V)"""
        return self.gate(views.transpose(0, 1).flatten(1))
