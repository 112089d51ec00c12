"""AdaLoRA: adapters lose the parts of their rank that matter least while they train."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from peft import AdaLoraConfig

_EPSILON = 1e-12


class RankAllocation(nn.Module):
    """The state of AdaLoRA (Zhang et al., ICLR 2023) in an encoder: how much each number of its
    adapters matters, as moving averages in buffers, which a checkpoint holds.

    peft's allocator does the work. Averages that are computed from gradients which are equal on
    all ranks are equal too.

    Example:
        add_adapters(encoder, "adalora", rank=8)
        ranks = RankAllocation(encoder, rank=8)
        ...  # loss.backward(), optimizer.step()
        ranks.allocate(encoder, step, steps=1000)
    """

    sensitivity: Tensor  # (P,), of the adapters' P numbers |number x gradient|
    uncertainty: Tensor  # (P,), how far that is from its average

    def __init__(self, encoder: nn.Module, *, rank: int) -> None:
        super().__init__()
        self.rank = rank
        size = sum(parameter.numel() for parameter in _adapters(encoder).values())
        self.register_buffer("sensitivity", torch.zeros(size))
        self.register_buffer("uncertainty", torch.zeros(size))

    @torch.no_grad()
    def allocate(self, encoder: nn.Module, step: int, *, steps: int) -> None:
        """After step `step` of `steps`, while its gradients are there: bring the averages up to
        date and set the singular values that fall out of the step's budget to 0."""
        from peft.tuners.adalora.layer import RankAllocator

        own = _adapters(encoder)
        allocator = RankAllocator(encoder, adalora_settings(rank=self.rank, steps=steps), "default")
        allocator.ipt = dict.fromkeys(own)
        allocator.exp_avg_ipt = _by_name(self.sensitivity, own)
        allocator.exp_avg_unc = _by_name(self.uncertainty, own)
        allocator.update_and_allocate(encoder, step)
        self.sensitivity.copy_(_flat(allocator.exp_avg_ipt, own))
        self.uncertainty.copy_(_flat(allocator.exp_avg_unc, own))


def adalora_settings(*, rank: int, steps: int = 1, **more: Any) -> "AdaLoraConfig":
    """AdaLoRA that leaves `rank` on average: half as much again in the first tenth of `steps`,
    then less and less, as a cubic; what is left trains in the last three tenths."""
    from peft import AdaLoraConfig

    first = -(-3 * rank // 2)
    return AdaLoraConfig(
        init_r=first,
        target_r=rank,
        lora_alpha=2 * first,
        tinit=steps // 10,
        tfinal=3 * steps // 10,
        deltaT=max(1, steps // 100),
        total_step=steps,
        **more,
    )


def keep_orthogonal(encoder: nn.Module, *, weight: float = 0.5) -> None:
    """Add the gradient of AdaLoRA's regulariser, `weight` times the mean of ||P P' - 1|| over the
    matrices of singular vectors, to that of the loss, whatever it is and however it is balanced,
    once a backward. It hangs on the parameters themselves: a deep copy of them lacks it."""
    vectors = {name: p for name, p in _adapters(encoder).items() if ".lora_E." not in name}
    for name, parameter in vectors.items():
        is_left = ".lora_B." in name
        parameter.register_hook(_pull(parameter, weight / len(vectors), transposed=is_left))


def _pull(
    parameter: nn.Parameter, weight: float, *, transposed: bool
) -> Callable[[Tensor], Tensor]:
    def hook(gradient: Tensor) -> Tensor:
        rows = parameter.detach().T if transposed else parameter.detach()  # (r, n)
        rest = rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
        pull = 2 * weight * (rest @ rows) / rest.norm().clamp(min=_EPSILON)
        return gradient + (pull.T if transposed else pull)

    return hook


def _adapters(encoder: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in encoder.named_parameters() if ".lora_" in name}


def _by_name(flat: Tensor, like: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """(P,) -> views of it in the shapes of `like`"""
    parts = flat.split([parameter.numel() for parameter in like.values()])
    return {n: part.view_as(p) for (n, p), part in zip(like.items(), parts, strict=True)}


def _flat(values: dict[str, Tensor], like: dict[str, nn.Parameter]) -> Tensor:
    """(P,)"""
    return torch.cat([values[name].flatten() for name in like])
