"""Small trainable parts in a pretrained encoder that stays as it is, by the library peft."""

from typing import Any, Literal

from torch import nn
from transformers.pytorch_utils import Conv1D

from flm_torchrec.errors import UserError
from flm_torchrec.views.rank_allocation import adalora_settings, keep_orthogonal

AdapterKind = Literal["lora", "adalora", "adapter"]


def add_adapters(encoder: nn.Module, kind: AdapterKind, *, rank: int) -> None:
    """Freeze `encoder` and put parts that train into its layers; it says the same as before.

    `lora`: a product of two matrices of `rank` beside each linear map, the second 0 at first, the
    sum times 2 (Hu et al., 2022). `adalora`: the product of three, half as much rank again, of
    which `RankAllocation` leaves `rank` on average, with the gradient that keeps singular vectors
    orthogonal (Zhang et al., 2023). `adapter`: a factor, 1 at first, on each output of each linear
    map ((IA)^3, Liu et al., 2022, which has them on some). UserError where there is no such map.
    """
    # Here: it takes seconds, which only those who ask for it should wait.
    from peft import IA3Config, LoraConfig, inject_adapter_in_model

    encoder.requires_grad_(False)
    is_transposed = any(isinstance(module, Conv1D) for module in encoder.modules())
    everywhere: dict[str, Any] = {"target_modules": "all-linear", "fan_in_fan_out": is_transposed}
    if kind == "lora":
        settings = LoraConfig(r=rank, lora_alpha=2 * rank, **everywhere)
    elif kind == "adalora":
        settings = adalora_settings(rank=rank, **everywhere)
    else:
        settings = IA3Config(feedforward_modules=[], **everywhere)
    try:
        inject_adapter_in_model(settings, encoder)
    except ValueError as error:
        raise UserError(
            f"views.text.mode: {kind} can't be put into {type(encoder).__name__}; "
            f"allowed: last_n or full: {error}"
        ) from error
    if kind == "adalora":
        keep_orthogonal(encoder)


def without_adapters(name: str) -> str:
    """What a parameter of an encoder with adapters is called in one without."""
    return name.replace(".base_layer.", ".")


def is_adapter(name: str) -> bool:
    """Whether a parameter of that name is an adapter's."""
    return ".lora_" in name or ".ia3_" in name
