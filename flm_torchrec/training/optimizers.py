"""The optimizers of a sharded model: fused ones for tables, a keyed one for all the rest."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torchrec.optim as sparse_optim
from torch import nn
from torch.optim import Optimizer
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper

from flm_torchrec.errors import UserError

OptimizerSettings = tuple[type[Optimizer], dict[str, Any]]
OptimizerFactory = Callable[[list[tuple[str, nn.Parameter]]], Optimizer]

# One epsilon for fused and data-parallel tables: both then take the same steps.
_EPSILON = {"eps": 1e-8}
_EVERYWHERE: dict[str, OptimizerSettings] = {
    "rowwise_adagrad": (sparse_optim.RowWiseAdagrad, _EPSILON),
    "adagrad": (torch.optim.Adagrad, _EPSILON),
    "sgd": (torch.optim.SGD, {}),
}
_CUDA_ONLY: dict[str, OptimizerSettings] = {
    "adam": (torch.optim.Adam, _EPSILON),
    "partial_rowwise_adam": (sparse_optim.PartialRowWiseAdam, _EPSILON),
    "lamb": (sparse_optim.LAMB, _EPSILON),
}

# TorchRec's classes of these only name a kernel: they can't update a data-parallel table.
FUSED_ONLY = ("partial_rowwise_adam", "lamb")


def table_optimizer(name: str, lr: float, device: torch.device) -> OptimizerSettings:
    """The class and arguments of the optimizer of the tables called `name`."""
    allowed = _EVERYWHERE | _CUDA_ONLY if device.type == "cuda" else _EVERYWHERE
    if name not in allowed:
        reason = " runs on CUDA only" if name in _CUDA_ONLY else " is unknown"
        raise UserError(
            f"sparse optimizer '{name}'{reason}; on {device.type} choose one of: "
            f"{', '.join(allowed)}"
        )
    optimizer_class, settings = allowed[name]
    return optimizer_class, {"lr": lr, **settings}


class ReadyOptimizer(KeyedOptimizerWrapper):
    """An optimizer keyed by parameter name whose state is there before the first step.

    A lazy state would be skipped without a word when a checkpoint is written or read.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], factory: OptimizerFactory) -> None:
        super().__init__(parameters, lambda _: factory(list(parameters.items())))
        self._base_lr = [group["lr"] for group in self.param_groups]
        self._materialise()

    @property
    def name(self) -> str:
        return type(self._optimizer).__name__

    def scale_lr(self, factor: float) -> None:
        """Set each group's learning rate to `factor` times the one it was made with."""
        for group, lr in zip(self._optimizer.param_groups, self._base_lr, strict=True):
            group["lr"] = lr * factor

    def _materialise(self) -> None:
        self.scale_lr(0.0)
        self.init_state()
        self.zero_grad()
        self.scale_lr(1.0)
        for state in self.state.values():
            if "step" in state:
                state["step"].zero_()


class DenseOptimizer(ReadyOptimizer):
    """The optimizer of every parameter outside the tables."""


def scale_dense_lr(optimizer: CombinedOptimizer, factor: float) -> None:
    """Set the dense learning rates to `factor` times their base; those of the tables stay."""
    for _, part in optimizer.optimizers:
        if isinstance(part, DenseOptimizer):
            part.scale_lr(factor)


def set_table_lr(optimizer: CombinedOptimizer, lr: float) -> None:
    """Set the learning rate of the tables, which take it up before their next step."""
    for _, part in optimizer.optimizers:
        if not isinstance(part, DenseOptimizer):
            for group in part.param_groups:
                cast(dict[str, Any], group)["lr"] = lr
