"""How much each of several losses counts: fixed, by its uncertainty, or by its gradients.

Gradients are taken with respect to the views, which is where tasks meet, before the one backward of
the step: what they decide is a weight a loss, so that this backward delivers their combination to
the views, and each task's own parameters the gradient of their own loss, weighted alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

V = TypeVar("V")
# (n, ...) of this rank -> (world_size * n, ...)
Gather = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Balanced:
    """Losses ready to be minimised, and what is to be told of them."""

    minimised: Tensor  # (T,), to be summed
    losses: Tensor  # (T,), unweighted, detached
    weights: Tensor  # (T,), what each loss counted, detached
    cosines: Tensor  # (T, T), between the tasks' gradients; (0, 0) where nobody took them


class Balance(nn.Module):
    """Base: `weight` (T,) is each loss's fixed weight, and `tensors` what gradients are taken with
    respect to, which only those with `takes_gradients` are given."""

    takes_gradients = False

    def forward(self, losses: Tensor, weight: Tensor, tensors: Sequence[Tensor]) -> Balanced:
        """losses (T,) -> what to minimise"""
        raise NotImplementedError


def no_gather(tensor: Tensor) -> Tensor:
    """Of a run of one rank."""
    return tensor


class Fixed(Balance):
    """Every loss counts its fixed weight."""

    def forward(self, losses: Tensor, weight: Tensor, tensors: Sequence[Tensor]) -> Balanced:
        """losses (T,) -> weight * losses"""
        return _balanced(weight * losses, losses, weight)


class Uncertainty(Balance):
    """`L exp(-s) + s / 2` with a learned log variance s a task (Kendall et al., CVPR 2018): at its
    best a loss counts 1 / (2 L). What is fixed multiplies both; a loss that no rank has in a step
    leaves its s alone."""

    def __init__(self, names: Sequence[str], *, gather: Gather = no_gather) -> None:
        super().__init__()
        # By name: a stage with other tasks takes over those that it has too.
        self.log_variance_names = tuple(f"log_variance_{name}" for name in names)
        for name in self.log_variance_names:
            self.register_parameter(name, nn.Parameter(torch.zeros(1)))
        self.gather = gather

    def forward(self, losses: Tensor, weight: Tensor, tensors: Sequence[Tensor]) -> Balanced:
        """losses (T,) -> weight * (losses * exp(-s) + s / 2)"""
        is_there = (self.gather(losses.detach()[None]) != 0).any(0)
        log_variance = torch.cat([self.get_parameter(name) for name in self.log_variance_names])
        scale = (-log_variance).exp()
        minimised = weight * (losses * scale + log_variance / 2 * is_there)
        return _balanced(minimised, losses, weight * scale)


class GradNorm(Balance):
    """Weights under which every task's gradient is as long as the others', or longer by the share
    of its first loss that is left, to the power `alpha` (Chen et al., ICML 2018).

    They are the softmax of learned logits, T times, so that they add up to T; what is fixed
    multiplies them. A task without gradient in a step neither moves nor is counted. All ranks see
    the same lengths and losses.
    """

    takes_gradients = True

    def __init__(
        self, names: Sequence[str], *, alpha: float = 1.5, gather: Gather = no_gather
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        # By name: a stage with other tasks takes over those that it has too.
        for name in names:
            self.register_parameter(f"logit_{name}", nn.Parameter(torch.zeros(1)))
            self.register_buffer(f"first_{name}", torch.zeros(1))  # loss when first there; 0: never
        self.alpha = alpha
        self.gather = gather

    def logits(self) -> Tensor:
        """(T,)"""
        return torch.cat([self.get_parameter(f"logit_{name}") for name in self.names])

    def left(self, losses: Tensor) -> Tensor:
        """losses (T,) as all ranks have them -> what is left of each task's first one"""
        left = []
        for name, loss in zip(self.names, losses.split(1), strict=True):
            first = self.get_buffer(f"first_{name}")
            first.copy_(torch.where(first == 0, loss, first))
            left.append(loss / torch.where(first == 0, 1.0, first))
        return torch.cat(left)

    def forward(self, losses: Tensor, weight: Tensor, tensors: Sequence[Tensor]) -> Balanced:
        """losses (T,) -> weighted losses, whose gradient also moves the weights"""
        products = gradient_products(losses, tensors, self.gather)
        left = self.left(self.gather(losses.detach()[None]).mean(0))
        norm = products.diagonal().sqrt()
        counts = (norm > 0) & (weight > 0)
        scale = len(losses) * self.logits().softmax(0)
        # Of norms relative to their mean: the scale of the gradients moves no weight.
        length = scale * norm / _mean(norm, counts)
        rate = left / _mean(left, counts)
        target = _mean(length.detach(), counts) * rate.clamp(min=0) ** self.alpha
        distance = ((length - target).abs() * counts).sum()
        minimised = weight * scale.detach() * losses + (distance - distance.detach()) / len(losses)
        return _balanced(minimised, losses, weight * scale, products)


class PCGrad(Balance):
    """Each task's gradient without its part against another's, one after another in random order
    (Yu et al., NeurIPS 2020).

    What is taken away is a negative multiple of the other's gradient, so the sum of what is left is
    a sum of the gradients themselves, each counting 1 or more. The products are added up over the
    ranks, and the order is the first rank's: all ranks weigh alike.
    """

    takes_gradients = True

    def __init__(self, *, gather: Gather = no_gather) -> None:
        super().__init__()
        self.gather = gather

    def forward(self, losses: Tensor, weight: Tensor, tensors: Sequence[Tensor]) -> Balanced:
        """losses (T,) -> losses whose gradients add up to the projected ones"""
        products = gradient_products(losses, tensors, self.gather)
        order = torch.rand_like(products).argsort(1)
        order = self.gather(order[None])[0]
        scale = projected(products * weight * weight[:, None], order)
        return _balanced(weight * scale * losses, losses, weight * scale, products)


def projected(products: Tensor, order: Tensor) -> Tensor:
    """products (T, T) of T gradients, order (T, T) in which each meets the others -> (T,) how often
    each gradient is in the sum of the projected ones."""
    num_tasks = len(products)
    own = torch.arange(num_tasks, device=products.device)
    parts = torch.eye(num_tasks, device=products.device)  # row t: of the t-th projected gradient
    squares = products.diagonal()
    for other in order.unbind(1):
        against = (parts * products[other]).sum(1).clamp(max=0) * (other != own)
        away = -against / squares[other].clamp(min=torch.finfo(products.dtype).tiny)
        parts = parts.scatter_add(1, other[:, None], away[:, None])
    return parts.sum(0)


def gradient_products(losses: Tensor, tensors: Sequence[Tensor], gather: Gather) -> Tensor:
    """(T, T) dot products of the losses' gradients with respect to all `tensors` together, over all
    ranks; the graph stays. A rank's own rows count as rows of the global batch."""
    products = losses.new_zeros(len(losses), len(losses))
    if tensors and losses.requires_grad:
        of_task = [
            torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
            for loss in losses.unbind()
        ]
        for gradients in zip(*of_task, strict=True):
            there = next((g for g in gradients if g is not None), None)
            if there is not None:
                flat = torch.stack(
                    [torch.zeros_like(there) if g is None else g for g in gradients]
                ).flatten(1)
                products = products + flat @ flat.T
    of_ranks = gather(products[None])
    # Ranks average their gradients: each has its rows' times the number of ranks.
    return of_ranks.sum(0) / len(of_ranks) ** 2


def cosines(products: Tensor) -> Tensor:
    """(T, T) dot products -> (T, T) cosines, 0 where a gradient is 0."""
    norm = products.diagonal().sqrt()
    return products / (norm * norm[:, None]).clamp(min=torch.finfo(products.dtype).tiny)


def forked(views: V) -> tuple[V, list[Tensor]]:
    """The same views through aliases, and those of the aliases that have a gradient: with respect
    to them it is that of the tasks alone, though one view is made of another."""
    return _remade(views, lambda tensor: tensor.view_as(tensor) if tensor.requires_grad else None)


def cut(views: V) -> tuple[V, list[Tensor]]:
    """The same views without what they were made of, and those that can have a gradient."""
    return _remade(
        views,
        lambda tensor: tensor.detach().requires_grad_() if tensor.is_floating_point() else None,
    )


def _remade(views: V, make: Callable[[Tensor], Tensor | None]) -> tuple[V, list[Tensor]]:
    """The views with what `make` makes of each tensor, and all that it made."""
    every: list[Tensor] = []

    def remake(value: Any) -> Any:
        if is_dataclass(value):
            made = {field.name: remake(getattr(value, field.name)) for field in fields(value)}
            return replace(cast(Any, value), **made)
        made = make(value) if isinstance(value, Tensor) else None
        if made is None:
            return value
        every.append(made)
        return made

    return remake(views), every


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    """Of the values that count, and 1 where none does."""
    mean = (values * counts).sum() / counts.sum().clamp(min=1)
    return torch.where(counts.any(), mean, torch.ones_like(mean))


def _balanced(
    minimised: Tensor, losses: Tensor, weights: Tensor, products: Tensor | None = None
) -> Balanced:
    return Balanced(
        minimised=minimised,
        losses=losses.detach(),
        weights=weights.detach(),
        cosines=losses.new_zeros(0, 0) if products is None else cosines(products),
    )
