"""Two ranks weigh tasks alike, as one rank does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from two_ranks.pool import Ranks
from two_ranks.trained import assembled, outputs_of

from flm_torchrec.config import RunConfig
from flm_torchrec.model import Views
from flm_torchrec.tasks.balance import GradNorm, PCGrad, Uncertainty
from flm_torchrec.trainable import Objective
from flm_torchrec.training.runtime import Runtime, all_gather

_TOLD = ("losses", "task_weights")
NAMES = ("a", "b", "c")
BALANCES = {
    "uncertainty": lambda: Uncertainty(NAMES, gather=all_gather),
    "gradnorm": lambda: GradNorm(NAMES, gather=all_gather),
    "pcgrad": lambda: PCGrad(gather=all_gather),
}


class Mean(nn.Module):
    """Over the edges of all ranks, of a planted score of each."""

    def __init__(self, score: Tensor) -> None:
        super().__init__()
        self.score = score  # (E, D)

    def forward(self, views: Views, batch: Any) -> Tensor:
        assert views.context is not None
        return (views.context[:, 0] * self.score).sum(1).mean()


def weights_and_gradients(runtime: Runtime, name: str) -> tuple[Tensor, list[Tensor]]:
    """-> what each of three tasks over this rank's share of 8 edges counts, and the gradients of
    what is learned of it."""
    torch.manual_seed(1)
    scores, rows = torch.randn(3, 8, 4), torch.rand(8, 1, 4)
    each = 8 // runtime.world_size
    ours = slice(runtime.rank * each, (runtime.rank + 1) * each)
    tasks = {task: Mean(score[ours]) for task, score in zip(NAMES, scores, strict=True)}
    balance = BALANCES[name]()
    objective = Objective(tasks, {"b": 0.5}, balance=balance)
    found = objective(Views(context=rows[ours].requires_grad_()), None)
    found.minimised.sum().backward()
    gradients = [parameter.grad for parameter in balance.parameters()]
    return found.weights, [all_gather(gradient[None]).mean(0) for gradient in gradients]


@pytest.mark.parametrize("name", BALANCES)
def test_two_ranks_weigh_tasks_as_one_does(name: str, alone: Runtime, ranks: Ranks) -> None:
    expected, moved = weights_and_gradients(alone, name)
    first, second = ranks.run(weights_and_gradients, name)
    assert torch.equal(first[0], second[0])
    torch.testing.assert_close(first[0], expected)
    torch.testing.assert_close(first[1], moved)


def config(data: Path, balance: str, bottom: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "data": {"path": str(data), "users": 8, "window": 8, "reverse": 0.0},
            "views": {"width": 16, "history": {"layers": 1, "dropout": 0.0}},
            "tasks": {
                "rank": {"weight": 0.1},
                "heads": {
                    "bottom": bottom,
                    "hidden": 16,
                    "width": 8,
                    "dropout": 0.0,
                    "adapter": 4,
                    "biases": ["rating"],
                },
                "balance": balance,
            },
            "train": {"steps": 15},
        }
    )


def train_from(runtime: Runtime, run: RunConfig, folder: Path) -> tuple[Tensor, Tensor]:
    """-> losses and weights (steps, T)"""
    outputs = outputs_of(assembled(runtime, run, folder))
    losses, weights = ([getattr(output, name) for output in outputs] for name in _TOLD)
    return torch.stack(losses), torch.stack(weights)


@pytest.mark.parametrize(
    ("balance", "bottom"), [("uncertainty", "mmoe"), ("gradnorm", "ple"), ("pcgrad", "shared")]
)
def test_two_ranks_train_balanced_as_one_rank_does(
    balance: str, bottom: str, alone: Runtime, ranks: Ranks, ml100k: Path, tmp_path: Path
) -> None:
    run = config(ml100k, balance, bottom)
    losses, weights = train_from(alone, run, tmp_path)
    (first, first_weights), (second, second_weights) = ranks.run(train_from, run, tmp_path)
    assert torch.equal(first_weights, second_weights)
    # Each rank has a row of an item that both met: products count it as two, one rank as one.
    allowed = 0.2 if balance == "pcgrad" else 2e-2
    torch.testing.assert_close(first_weights, weights, rtol=0.0, atol=allowed)
    torch.testing.assert_close((first + second) / 2, losses, rtol=1e-2, atol=1e-2)
    assert losses[-3:, 0].mean() < losses[:3, 0].mean()
