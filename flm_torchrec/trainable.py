"""What every TorchRec pipeline wants: a batch in, (losses, output) out."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flm_torchrec.data.batch import FLMBatch, TensorBatch
from flm_torchrec.model import FLM, Views
from flm_torchrec.tasks.balance import (
    Balance,
    Balanced,
    Fixed,
    Gather,
    cosines,
    cut,
    forked,
    gradient_products,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput(TensorBatch):
    """What a step tells its log."""

    losses: Tensor  # (T,) float32, unweighted, detached; in the order of Objective.names
    task_weights: Tensor  # (T,) float32, what each loss counted
    cosines: Tensor  # (T, T) float32, between the tasks' gradients; (0, 0) where nobody took them
    view_weights: Tensor  # (V,) float32, mean weight the fusion gave each item view


class Objective(nn.Module):
    """Named tasks, each with a fixed weight, that `balance` weighs against each other.

    A task is a module `(views, batch) -> scalar`; one with the attribute `names` returns a vector
    with an entry for each of them.

    Example:
        tasks = {"rank": Ranking(mask_seen=True), "align": Alignment()}
        objective = Objective(tasks, {"align": 0.1})
    """

    weight: Tensor  # (T,)

    def __init__(
        self,
        tasks: Mapping[str, nn.Module],
        weights: Mapping[str, float] | None = None,
        *,
        balance: Balance | None = None,
    ) -> None:
        super().__init__()
        self.tasks = nn.ModuleDict(tasks)
        self.balance = balance or Fixed()
        weights = weights or {}
        scale: list[float] = []
        for name, task in tasks.items():
            scale += [weights.get(part, weights.get(name, 1.0)) for part in names_of(name, task)]
        self.names = loss_names(tasks)
        self.register_buffer("weight", torch.tensor(scale), persistent=False)

    def forward(self, views: Views, batch: FLMBatch) -> Balanced:
        """-> losses (T,) to be minimised, and what became of them."""
        tensors: list[Tensor] = []
        if self.balance.takes_gradients:
            views, tensors = forked(views)
        return self.balance(self.losses(views, batch), self.weight, tensors)

    def losses(self, views: Views, batch: FLMBatch) -> Tensor:
        """(T,) unweighted"""
        return torch.cat([task(views, batch).reshape(-1) for task in self.tasks.values()])

    def cosines(self, views: Views, batch: FLMBatch, *, gather: Gather) -> Tensor:
        """(T, T) between the tasks' gradients with respect to views made with or without a graph,
        whatever balances them; called by all ranks."""
        with torch.enable_grad():
            views, tensors = cut(views)
            losses = self.losses(views, batch)
            return cosines(gradient_products(losses, tensors, gather))


def names_of(name: str, task: nn.Module) -> tuple[str, ...]:
    """Of the losses of the task called `name`."""
    return getattr(task, "names", (name,))


def loss_names(tasks: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """Of the losses of all tasks, in their order."""
    return tuple(part for name, task in tasks.items() for part in names_of(name, task))


class FLMTrain(nn.Module):
    """The model with its objective, to be wrapped by `DistributedModelParallel`."""

    def __init__(self, flm: FLM, objective: Objective) -> None:
        super().__init__()
        self.flm = flm
        self.objective = objective

    def forward(self, batch: FLMBatch) -> tuple[Tensor, StepOutput]:
        """-> weighted losses (T,), whose sum is minimised, and what to log"""
        views = self.flm(batch)
        found = self.objective(views, batch)
        # Plain tensors, whatever the model consists of: pipelines trace this.
        view_weights = found.losses.new_zeros(0)
        if views.items is not None:
            view_weights = views.items.weights.detach().mean(0)
        return found.minimised, StepOutput(
            losses=found.losses,
            task_weights=found.weights,
            cosines=found.cosines,
            view_weights=view_weights,
        )
