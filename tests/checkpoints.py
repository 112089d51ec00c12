"""What a checkpoint holds, entry by entry."""

from pathlib import Path

import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save


def whole(checkpoint: Path, folder: Path) -> dict[str, torch.Tensor]:
    """Every entry of a checkpoint."""
    file = folder / f"{checkpoint.parent.parent.name}.pt"
    dcp_to_torch_save(checkpoint, file)
    flat: dict[str, torch.Tensor] = {}

    def add(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                add(f"{name}.{key}", part)
        elif isinstance(value, torch.Tensor):
            flat[name] = value

    add("", torch.load(file, weights_only=False))
    return flat
