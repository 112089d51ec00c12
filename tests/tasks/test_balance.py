import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from flm_torchrec.model import Views
from flm_torchrec.tasks.balance import (
    Fixed,
    GradNorm,
    PCGrad,
    Uncertainty,
    forked,
    gradient_products,
    projected,
)
from flm_torchrec.trainable import Objective


class Along(nn.Module):
    """A task whose gradient at the context is planted: `direction` (D,), times its own scale."""

    def __init__(self, *direction: float) -> None:
        super().__init__()
        self.direction = torch.tensor(direction)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, views, batch) -> Tensor:
        return self.scale * (views.context[0, 0] * self.direction).sum()


def context(*values: float) -> Tensor:
    return torch.tensor([[values]], requires_grad=True)  # (1, 1, D)


def names(count: int) -> tuple[str, ...]:
    return tuple("abc")[:count]


def step(balance, tasks: list[nn.Module], at: Tensor, weights=None):
    objective = Objective(
        dict(zip(names(len(tasks)), tasks, strict=True)), weights, balance=balance
    )
    found = objective(Views(context=at), None)
    found.minimised.sum().backward()
    return found


def test_fixed_weights_take_no_gradients():
    at = context(1.0, 2.0)
    found = step(Fixed(), [Along(1.0, 0.0), Along(-1.0, 1.0)], at, {"b": 0.5})
    assert found.weights.tolist() == [1.0, 0.5]
    assert found.cosines.shape == (0, 0)
    assert at.grad.flatten().tolist() == [0.5, 0.5]


def test_uncertainty_by_hand():
    balance = Uncertainty(("a", "b"))
    with torch.no_grad():
        balance.log_variance_a.fill_(math.log(4))
    tasks = [Along(3.0), Along(5.0)]
    at = context(1.0)
    found = step(balance, tasks, at, {"b": 0.1})
    expected = [3 / 4 + math.log(4) / 2, 0.1 * 5.0]
    assert found.minimised.tolist() == pytest.approx(expected)
    assert found.losses.tolist() == [3.0, 5.0]
    assert found.weights.tolist() == pytest.approx([0.25, 0.1])
    assert at.grad.item() == pytest.approx(3 / 4 + 0.1 * 5)
    assert balance.log_variance_a.grad.item() == pytest.approx(-3 / 4 + 1 / 2)
    assert balance.log_variance_b.grad.item() == pytest.approx(0.1 * (-5 + 1 / 2))


def test_a_loss_that_is_not_there_leaves_its_variance_alone():
    balance = Uncertainty(("a", "b"))
    step(balance, [Along(0.0), Along(1.0)], context(1.0))
    assert balance.log_variance_a.grad.item() == 0
    assert balance.log_variance_b.grad.item() != 0


def test_a_gradient_loses_its_part_against_another():
    """(1, 0) and (-1, 1): without their parts against each other (1/2, 1/2) and (0, 1)."""
    at = context(1.0, 2.0)
    tasks = [Along(1.0, 0.0), Along(-1.0, 1.0)]
    found = step(PCGrad(), tasks, at)
    assert at.grad.flatten().tolist() == pytest.approx([0.5, 1.5])
    # As a sum of the two gradients: 2 (1, 0) + 1.5 (-1, 1).
    assert found.weights.tolist() == pytest.approx([2.0, 1.5])
    assert found.losses.tolist() == [1.0, 1.0]
    assert [task.scale.grad.item() for task in tasks] == pytest.approx([2.0, 1.5])
    assert found.cosines.flatten().tolist() == pytest.approx([1, -(0.5**0.5), -(0.5**0.5), 1])


def test_gradients_that_agree_are_added_up():
    at = context(1.0, 2.0)
    found = step(PCGrad(), [Along(1.0, 0.0), Along(1.0, 1.0)], at, {"b": 3.0})
    assert found.weights.tolist() == [1.0, 3.0]
    assert at.grad.flatten().tolist() == pytest.approx([4.0, 3.0])


def test_weighted_gradients_are_projected():
    at = context(1.0, 2.0)
    step(PCGrad(), [Along(1.0, 0.0), Along(-1.0, 1.0)], at, {"b": 2.0})
    # (1, 0) and (-2, 2) become (1/2, 1/2) and (0, 2).
    assert at.grad.flatten().tolist() == pytest.approx([0.5, 2.5])


def slow_projection(gradients: Tensor, order: Tensor) -> Tensor:
    """As the paper's algorithm says it."""
    total = torch.zeros(gradients.shape[1])
    for task, own in enumerate(gradients):
        left = own.clone()
        for other in order[task].tolist():
            dot = left @ gradients[other]
            if other != task and dot < 0:
                left -= dot / (gradients[other] @ gradients[other]) * gradients[other]
        total += left
    return total


def test_many_projections_are_those_of_the_papers_algorithm():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        gradients = torch.randn(4, 5, generator=generator)
        order = torch.rand(4, 4, generator=generator).argsort(1)
        times = projected(gradients @ gradients.T, order)
        assert (times >= 1).all()
        torch.testing.assert_close(times @ gradients, slow_projection(gradients, order))


def test_a_task_without_gradient_disturbs_no_other():
    for balance in (PCGrad(), GradNorm(names(3))):
        at = context(1.0, 2.0)
        found = step(balance, [Along(0.0, 0.0), Along(-1.0, 1.0), Along(1.0, 0.0)], at)
        assert found.minimised.isfinite().all()
        assert at.grad.isfinite().all()
        assert found.weights[0] == 1.0
        assert found.cosines[0].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("balance", [Uncertainty(names(2)), GradNorm(names(2)), PCGrad()])
def test_nothing_to_learn_is_a_loss_and_gradients_of_0(balance):
    at = context(1.0, 2.0)
    found = step(balance, [Along(0.0, 0.0), Along(0.0, 0.0)], at)
    assert found.minimised.tolist() == [0.0, 0.0]
    assert at.grad.abs().sum() == 0
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in balance.parameters())


def gradnorm_weights(tasks: list[nn.Module], *, steps: int, at: Tensor, **more) -> Tensor:
    balance = GradNorm(names(len(tasks)), **more)
    optimizer = torch.optim.SGD(balance.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        found = step(balance, tasks, at)
        optimizer.step()
    return found.weights


def test_gradnorm_gives_the_longer_gradient_the_smaller_weight():
    weights = gradnorm_weights([Along(3.0, 0.0), Along(0.0, 1.0)], steps=200, at=context(1.0, 1.0))
    assert weights.tolist() == pytest.approx([0.5, 1.5], abs=0.05)  # 3 to 1, added up to 2
    first = gradnorm_weights([Along(3.0, 0.0), Along(0.0, 1.0)], steps=2, at=context(1.0, 1.0))
    assert first[0] < 1 < first[1]


def test_gradnorm_gives_the_task_that_is_behind_the_longer_gradient():
    """Of the same lengths; one loss is half its first, the other is what it was."""
    balance = GradNorm(names(2))
    tasks = [Along(1.0, 0.0), Along(0.0, 1.0)]
    step(balance, tasks, context(1.0, 1.0))
    assert balance.first_a.item() == 1.0
    optimizer = torch.optim.SGD(balance.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        found = step(balance, tasks, context(0.5, 1.0))
        optimizer.step()
    assert balance.first_a.item() == 1.0
    ratio = found.weights[1] / found.weights[0]
    assert ratio.item() == pytest.approx(2**1.5, rel=0.1)
    assert found.weights.sum().item() == pytest.approx(2.0)


def test_gradnorm_by_hand():
    balance = GradNorm(names(2))
    tasks, at = [Along(3.0, 0.0), Along(0.0, 1.0)], context(1.0, 1.0)
    found = step(balance, tasks, at, {"b": 0.5})
    # Lengths 3 and 1, relative 1.5 and 0.5; the target is 1 of both: distance 0.5 + 0.5. Weights
    # are 2 softmax: 2 * 1/4 (1.5 + 0.5) of one logit, as much against the other.
    assert balance.logit_a.grad.item() == pytest.approx(1.0)
    assert balance.logit_b.grad.item() == pytest.approx(-1.0)
    assert found.minimised.tolist() == [3.0, 0.5]
    assert found.weights.tolist() == [1.0, 0.5]
    assert at.grad.flatten().tolist() == [3.0, 0.5]


@dataclass(frozen=True)
class Two:
    first: Tensor
    second: Tensor
    plain: Tensor


def test_gradients_are_those_of_the_tasks_though_one_view_is_made_of_another():
    first = torch.ones(2, requires_grad=True)
    fork, tensors = forked(Two(first=first, second=3 * first, plain=torch.ones(1)))
    assert len(tensors) == 2
    losses = torch.stack([(fork.first * fork.second).sum(), fork.second[0]])
    products = gradient_products(losses, tensors, lambda tensor: tensor)
    # At (first, second): (3, 3, 1, 1) and (0, 0, 1, 0).
    assert products.tolist() == [[20.0, 1.0], [1.0, 1.0]]
    losses.sum().backward()
    assert first.grad.tolist() == [6.0 + 3.0, 6.0]


def test_products_are_of_the_global_batch():
    """Two ranks, each with its rows times 2; a gather that brings the same of another rank."""
    views = torch.ones(2, requires_grad=True)
    losses = torch.stack([2 * views.sum(), 4 * views[0]])
    products = gradient_products(losses, [views], lambda tensor: torch.cat([tensor, tensor]))
    # The whole of 4 rows: (1, 1, 1, 1) and (2, 0, 2, 0).
    assert products.tolist() == [[4.0, 4.0], [4.0, 8.0]]


def test_cosines_can_be_had_of_fixed_tasks_and_of_views_without_a_graph():
    objective = Objective({"a": Along(1.0, 0.0), "b": Along(-1.0, 1.0)})
    with torch.no_grad():
        found = objective.cosines(
            Views(context=torch.ones(1, 1, 2)), None, gather=lambda tensor: tensor
        )
    assert found.flatten().tolist() == pytest.approx([1, -(0.5**0.5), -(0.5**0.5), 1])
    assert all(parameter.grad is None for parameter in objective.parameters())
