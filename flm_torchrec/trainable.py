"""What every TorchRec pipeline wants: a batch in, (losses, output) out."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flm_torchrec.data.batch import FLMBatch, TensorBatch
from flm_torchrec.model import FLM, Views


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput(TensorBatch):
    """What a step tells its log."""

    losses: Tensor  # (T,) float32, unweighted, detached; in the order of Objective.names
    view_weights: Tensor  # (V,) float32, mean weight the fusion gave each item view


class Objective(nn.Module):
    """Named tasks with fixed weights.

    A task is a module `(views, batch) -> scalar`; one with the attribute `names` returns a vector
    with an entry for each of them.

    Example:
        tasks = {"rank": Ranking(mask_seen=True), "align": Alignment()}
        objective = Objective(tasks, {"align": 0.1})
    """

    weight: Tensor  # (T,)

    def __init__(
        self, tasks: Mapping[str, nn.Module], weights: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        self.tasks = nn.ModuleDict(tasks)
        weights = weights or {}
        names: list[str] = []
        scale: list[float] = []
        for name, task in tasks.items():
            parts: tuple[str, ...] = getattr(task, "names", (name,))
            names += parts
            scale += [weights.get(part, weights.get(name, 1.0)) for part in parts]
        self.names = tuple(names)
        self.register_buffer("weight", torch.tensor(scale), persistent=False)

    def forward(self, views: Views, batch: FLMBatch) -> tuple[Tensor, Tensor]:
        """-> weighted losses (T,), and the same unweighted and detached."""
        losses = torch.cat([task(views, batch).reshape(-1) for task in self.tasks.values()])
        return self.weight * losses, losses.detach()


class FLMTrain(nn.Module):
    """The model with its objective, to be wrapped by `DistributedModelParallel`."""

    def __init__(self, flm: FLM, objective: Objective) -> None:
        super().__init__()
        self.flm = flm
        self.objective = objective

    def forward(self, batch: FLMBatch) -> tuple[Tensor, StepOutput]:
        """-> weighted losses (T,), whose sum is minimised, and what to log"""
        views = self.flm(batch)
        weighted, losses = self.objective(views, batch)
        # Plain tensors, whatever the model consists of: pipelines trace this.
        view_weights = losses.new_zeros(0)
        if views.items is not None:
            view_weights = views.items.weights.detach().mean(0)
        return weighted, StepOutput(losses=losses, view_weights=view_weights)
