"""The state of a sharded model and its optimizers, by name."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.keyed import CombinedOptimizer

from flm_torchrec.errors import UserError


def sharded_state(dmp: DistributedModelParallel, optimizer: CombinedOptimizer) -> dict[str, Any]:
    """What a checkpoint holds: the tensors themselves, so that DCP loads in place.

    State that an optimizer has yet to make (AdamW's, before its first step) would be left out
    without a word: see `ReadyOptimizer`.
    """
    return {"model": dmp.state_dict(), "optimizer": optimizer.state_dict()["state"]}


def entry_shapes(state: Mapping[str, Any]) -> dict[str, list[int] | None]:
    """Entry -> shape, over all ranks: a rank has optimizer state of its own tables only."""
    entries = {f"model.{name}": value for name, value in state["model"].items()} | {
        f"optimizer.{parameter}.{name}": value
        for parameter, values in state["optimizer"].items()
        for name, value in values.items()
    }
    local = {
        name: list(value.size()) if isinstance(value, torch.Tensor) else None
        for name, value in entries.items()
    }
    of_ranks: list[dict[str, list[int] | None]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(of_ranks, local)
    return {name: shape for of_rank in of_ranks for name, shape in sorted(of_rank.items())}


def check_shapes(
    place: str, *, held: Mapping[str, list[int] | None], wanted: Mapping[str, list[int] | None]
) -> None:
    """Raise UserError, naming `place`, unless both have the same entries in the same shapes."""
    found = []
    missing, unexpected = sorted(wanted.keys() - held.keys()), sorted(held.keys() - wanted.keys())
    if missing:
        found.append(f"lacks {len(missing)} entries of the model, first {missing[0]}")
    if unexpected:
        found.append(f"holds {len(unexpected)} that the model lacks, first {unexpected[0]}")
    other = [name for name in sorted(wanted) if name in held and held[name] != wanted[name]]
    if other:
        name = other[0]
        found.append(f"holds {name} of shape {held[name]}, the model's is {wanted[name]}")
    if found:
        raise UserError(f"{place}: {'; '.join(found)}")
