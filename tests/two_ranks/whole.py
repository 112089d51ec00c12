"""Sharded state put together, to compare worlds and plans."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.keyed import CombinedOptimizer


def whole_state(
    dmp: DistributedModelParallel, optimizer: CombinedOptimizer
) -> dict[str, list[Any] | Any]:
    """Every entry of model and optimizers as nested lists, by name, equal on all ranks."""
    local = {f"model.{name}": value for name, value in dmp.state_dict().items()} | {
        f"optimizer.{parameter}.{name}": value
        for parameter, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    pieces = {name: (list(value.size()), _pieces(value)) for name, value in local.items()}
    of_ranks: list[dict[str, Any]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(of_ranks, pieces)
    whole: dict[str, Tensor] = {}
    for of_rank in of_ranks:
        for name, (size, shards) in of_rank.items():
            target = whole.setdefault(name, torch.full(size, float("nan")))
            for offsets, piece in shards:
                place = tuple(
                    slice(start, start + n) for start, n in zip(offsets, piece.shape, strict=True)
                )
                target[place] = piece.float()
    assert not any(value.isnan().any() for value in whole.values())
    return {name: value.tolist() for name, value in sorted(whole.items())}


def _pieces(value: Tensor | ShardedTensor) -> list[tuple[list[int], Tensor]]:
    if isinstance(value, ShardedTensor):
        return [
            (list(shard.metadata.shard_offsets), shard.tensor.detach().clone())
            for shard in value.local_shards()
        ]
    return [([0] * value.dim(), value.detach().clone())]
