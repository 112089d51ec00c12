"""Bytes of a step: of tables that it must move, and of what a rank sends to the others."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from flm_benchmarks.sharding.ids import Batches
from flm_benchmarks.sharding.timing import Spread, repeat, slowest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from flm_torchrec.planning.tables import Table

_FLOAT = 4
_SCALE_AND_BIAS = 4  # of a quantised row, two halves


def state_bytes(optimizer: str, dim: int) -> int:
    """What a table's optimizer keeps for a row."""
    match optimizer:
        case "sgd":
            return 0
        case "rowwise_adagrad":
            return _FLOAT
        case "adagrad":
            return _FLOAT * dim
        case "partial_rowwise_adam":
            return _FLOAT * (dim + 1)
    return 2 * _FLOAT * dim  # adam, lamb


def useful_bytes(tables: Sequence[Table], batches: Batches, optimizer: str | None) -> float:
    """Bytes of table rows that a step has to move, whatever the plan; mean of the batches.

    Forward reads a row an id. The update reads and writes each distinct row of the step once, and
    its state. Without an optimizer the rows are int8 ones, which are only read.
    """
    if optimizer is None:
        return sum(batches.lookups[table.name] * (table.dim + _SCALE_AND_BIAS) for table in tables)
    return sum(
        batches.lookups[table.name] * table.row_bytes
        + batches.distinct[table.name] * 2 * (table.row_bytes + state_bytes(optimizer, table.dim))
        for table in tables
    )


def copy_speed(device: torch.device, *, megabytes: int, repeats: int = 10) -> Spread:
    """Bytes/s, read and written, that all ranks together reach when each copies a large tensor."""
    source = torch.ones(megabytes * 2**20 // _FLOAT, device=device)
    target = torch.empty_like(source)
    seconds = slowest(repeat(lambda: target.copy_(source), device, steps=repeats, warmup=2))
    moved = 2 * source.numel() * _FLOAT * dist.get_world_size()
    return Spread.of(moved / seconds)


class SentBytes(TorchDispatchMode):
    """Counts, while it is entered, the bytes that leave this rank.

    What a rank keeps of an exchange is not sent. An all-reduce counts as a ring's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            self.total += _sent(func.__name__.partition(".")[0], args)
        return func(*args, **(kwargs or {}))


def _sent(name: str, args: Sequence[Any]) -> float:
    world_size, rank = dist.get_world_size(), dist.get_rank()
    match name:
        case "alltoall_base_":
            given, own_sizes = args[1], args[4]
            if not own_sizes:
                return _size(given) * (world_size - 1) / world_size
            row = _size(given) / max(1, sum(own_sizes))
            return row * (sum(own_sizes) - own_sizes[rank])
        case "_allgather_base_":
            return _size(args[1]) * (world_size - 1)
        case "allgather_":
            return _size(args[1]) * (world_size - 1)
        case "_reduce_scatter_base_":
            return _size(args[1]) * (world_size - 1) / world_size
        case "reduce_scatter_":
            return _size(args[1]) * (world_size - 1) / world_size
        case "allreduce_" | "allreduce_coalesced_":
            return 2 * _size(args[0]) * (world_size - 1) / world_size
        case "broadcast_":
            return _size(args[0]) * (world_size - 1) if args[2] == rank else 0.0
    return 0.0


def _size(tensors: Any) -> float:
    if isinstance(tensors, Tensor):
        return tensors.numel() * tensors.element_size()
    return sum(_size(each) for each in tensors)
