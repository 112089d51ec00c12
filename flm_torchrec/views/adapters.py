"""Small trainable parts in a pretrained encoder that stays as it is, by the library peft."""

from typing import Literal

from torch import nn
from transformers.pytorch_utils import Conv1D

from flm_torchrec.errors import UserError


def add_adapters(encoder: nn.Module, kind: Literal["lora", "adapter"], *, rank: int) -> None:
    """Freeze `encoder` and put parts that train into its layers; it says the same as before.

    `lora`: a product of two matrices of `rank` beside each linear map, the second 0 at first, the
    sum times 2 (Hu et al., 2022). `adapter`: a factor, 1 at first, on each output of each linear
    map ((IA)^3, Liu et al., 2022, which has them on some). UserError where there is no such map.
    """
    # Here: it takes seconds, which only those who ask for it should wait.
    from peft import IA3Config, LoraConfig, inject_adapter_in_model

    encoder.requires_grad_(False)
    is_transposed = any(isinstance(module, Conv1D) for module in encoder.modules())
    if kind == "lora":
        settings = LoraConfig(
            r=rank,
            lora_alpha=2 * rank,
            target_modules="all-linear",
            fan_in_fan_out=is_transposed,
        )
    else:
        settings = IA3Config(
            target_modules="all-linear", feedforward_modules=[], fan_in_fan_out=is_transposed
        )
    try:
        inject_adapter_in_model(settings, encoder)
    except ValueError as error:
        raise UserError(
            f"views.text.mode: {kind} can't be put into {type(encoder).__name__}; "
            f"allowed: last_n or full: {error}"
        ) from error


def without_adapters(name: str) -> str:
    """What a parameter of an encoder with adapters is called in one without."""
    return name.replace(".base_layer.", ".")


def is_adapter(name: str) -> bool:
    """Whether a parameter of that name is an adapter's."""
    return ".lora_" in name or ".ia3_" in name
