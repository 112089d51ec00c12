"""Memory of this process: its peak, and whether tables would fit."""

from collections.abc import Sequence
from pathlib import Path

import torch
from flm_benchmarks.sharding.point import Point
from flm_benchmarks.sharding.traffic import state_bytes

from flm_torchrec.planning.machine import available_memory
from flm_torchrec.planning.tables import Table
from flm_torchrec.training.placing import DATA_PARALLEL

_CLEAR_PEAK = "5"  # what /proc/self/clear_refs takes for: forget the highest use


def reset_peak(device: torch.device) -> None:
    """Let the peak be that of what comes now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text(_CLEAR_PEAK)


def peak_bytes(device: torch.device) -> int:
    """The most memory since: of the GPU's allocator, or of the whole process on CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def check_fits(
    tables: Sequence[Table], point: Point, optimizer: str, *, world_size: int, local_ranks: int
) -> None:
    """MemoryError where tables on CPU take more than this machine has; the system would end the
    process without a word."""
    rows = sum(
        table.rows * (table.row_bytes + (state_bytes(optimizer, table.dim) if point.trains else 0))
        for table in tables
    )
    if point.sharding == DATA_PARALLEL:
        dense_gradients = sum(table.rows * table.row_bytes for table in tables)
        # Beside the rows their gradients, or the int8 rows that are made of them.
        needed = local_ranks * (rows + (dense_gradients if point.trains else rows // 3))
    else:
        needed = rows * local_ranks // world_size
    free = available_memory() * 2**30
    if needed > free:
        raise MemoryError(
            f"the tables take about {needed / 2**30:.1f} GiB of this machine, "
            f"which has {free / 2**30:.1f} GiB left"
        )
