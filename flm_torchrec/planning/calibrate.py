"""Measure this machine: memory, lookups and updates of fused tables, and what ranks exchange.

Example:
    with start() as runtime:
        calibration = calibrate(runtime, repeats=20)  # on every rank
"""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import torch
import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    SplitTableBatchedEmbeddingBagsCodegen,
)
from torch import Tensor, nn
from torchrec.distributed.comm import get_local_size

from flm_torchrec.planning.calibration import (
    COLLECTIVES,
    Calibration,
    Collective,
    Line,
    far_share,
)
from flm_torchrec.planning.fit import nonnegative
from flm_torchrec.planning.ids import Ids
from flm_torchrec.planning.measuring import Clock
from flm_torchrec.planning.whole_steps import measure_steps
from flm_torchrec.training.optimizers import table_optimizer
from flm_torchrec.training.runtime import Runtime

_COPIED = 2**26  # numbers of fp32
# Rows and width of a table, bags and ids a bag.
_LOOKUPS = (
    *((10_000, 16, 256, 1), (10_000, 16, 4096, 1), (10_000, 64, 1024, 10), (10_000, 128, 256, 1)),
    *((100_000, 16, 1024, 1), (100_000, 64, 4096, 1), (100_000, 64, 1024, 20)),
    *((1_000_000, 16, 1024, 10), (1_000_000, 64, 256, 1), (1_000_000, 64, 1024, 20)),
    *((1_000_000, 128, 4096, 1), (1_000_000, 128, 1024, 10)),
)
_DENSE_ROWS = (1_000, 10_000, 100_000, 1_000_000)  # of width 64
_EXCHANGED = (2**10, 2**14, 2**17, 2**20, 2**23)  # bytes of a rank's larger tensor
_PACKAGES = ("torch", "torchrec", "fbgemm-gpu-cpu", "fbgemm-gpu")
Point = dict[str, Any]


def calibrate(
    runtime: Runtime, *, repeats: int = 20, ids: Ids | None = None, is_short: bool = False
) -> Calibration:
    """Measure, on all ranks together; every rank has the same result. `ids` tells how often rows
    are met (uniform). `is_short` measures a few points only, for a try."""
    ids = ids or Ids()
    clock = Clock(runtime.device, repeats)
    lookups = _LOOKUPS[:6] if is_short else _LOOKUPS
    measured: list[Point] = []
    lookup, update = _fused(clock, lookups, ids, measured)
    dense = _dense(clock, _DENSE_ROWS[::3] if is_short else _DENSE_ROWS, measured)
    sizes = _EXCHANGED[:4] if is_short else _EXCHANGED
    collectives: dict[Collective, Line] = {}
    if runtime.world_size > 1:
        for kind in COLLECTIVES:
            collectives[kind] = _exchange(clock, kind, sizes, measured)
    calibration = Calibration(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine_of(runtime.device),
        versions=versions_here(),
        ids=str(ids),
        device="cuda" if runtime.device.type == "cuda" else "cpu",
        world_size=runtime.world_size,
        local_world_size=get_local_size(),
        copy_bandwidth=_copy_bandwidth(clock, _COPIED // (16 if is_short else 1)),
        lookup=lookup,
        update=update,
        dense_update=dense,
        collectives=collectives,
        measured=measured,
    )
    steps, points = measure_steps(clock, calibration, ids, is_short=is_short)
    return calibration.model_copy(update={"steps": steps, "measured": [*measured, *points]})


def _copy_bandwidth(clock: Clock, count: int) -> float:
    source = torch.ones(count, device=clock.device)
    target = torch.zeros_like(source)
    milliseconds = clock.time(lambda: target.copy_(source))
    return 2 * 4 * count / milliseconds * 1000


def _fused(
    clock: Clock,
    lookups: Sequence[tuple[int, int, int, int]],
    ids: Ids,
    measured: list[Point],
) -> tuple[Line, Line]:
    features, forward, backward = [], [], []
    for rows, dim, bags, pooling in lookups:
        table = _table(rows, dim, clock.device)
        rows_met = ids.draw(rows, bags * pooling).to(clock.device)
        offsets = torch.arange(0, bags * pooling + 1, pooling, device=clock.device)
        pooled = table(rows_met, offsets)
        gradient = torch.ones_like(pooled)
        held: list[Tensor] = []
        looked_up = clock.time(lambda t=table, i=rows_met, o=offsets: t(i, o))
        updated = clock.time(
            lambda h=held, g=gradient: h.pop().backward(g),
            before=lambda h=held, t=table, i=rows_met, o=offsets: h.append(t(i, o)),
        )
        size = 4 * dim * bags * (pooling + 1)
        far, count = far_share(4 * rows * dim), bags * pooling
        features.append([1.0, count, far * count, size])
        forward.append(looked_up)
        backward.append(updated)
        shape = {"rows": rows, "dim": dim, "bags": bags, "pooling": pooling}
        measured.append({"kind": "lookup", **shape, "ms": looked_up})
        measured.append({"kind": "update", **shape, "ms": updated})
    return _line(features, forward), _line(features, backward)


def _table(rows: int, dim: int, device: torch.device) -> nn.Module:
    is_cuda = device.type == "cuda"
    place = EmbeddingLocation.DEVICE if is_cuda else EmbeddingLocation.HOST
    return SplitTableBatchedEmbeddingBagsCodegen(
        [(rows, dim, place, ComputeDevice.CUDA if is_cuda else ComputeDevice.CPU)],
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=0.01,
        device=device,
    )


def _line(features: Sequence[Sequence[float]], wanted: Sequence[float]) -> Line:
    fixed, each, far, byte = nonnegative(features, wanted)
    return Line(fixed_ms=fixed, id_ms=each, far_id_ms=far, byte_ms=byte)


def _bytes_line(sizes: Sequence[int], wanted: Sequence[float]) -> Line:
    fixed, byte = nonnegative([[1.0, size] for size in sizes], wanted)
    return Line(fixed_ms=fixed, byte_ms=byte)


def _dense(clock: Clock, rows: Sequence[int], measured: list[Point]) -> Line:
    """A dense gradient made anew, and the update of all rows by it."""
    optimizer_class, settings = table_optimizer("rowwise_adagrad", 0.01, clock.device)
    features, taken = [], []
    for count in rows:
        table = nn.Parameter(torch.zeros(count, 64, device=clock.device))
        optimizer = optimizer_class([table], **settings)

        def step(table: nn.Parameter = table, optimizer: Any = optimizer) -> None:
            table.grad = torch.zeros_like(table)
            optimizer.step()

        size = 4 * table.numel()
        features.append([1.0, size, far_share(size) * size])
        taken.append(clock.time(step))
        measured.append({"kind": "dense_update", "bytes": size, "ms": taken[-1]})
    fixed, byte, far = nonnegative(features, taken)
    return Line(fixed_ms=fixed, byte_ms=byte, far_byte_ms=far)


def _exchange(clock: Clock, kind: Collective, sizes: Sequence[int], measured: list[Point]) -> Line:
    world, taken, exact = dist.get_world_size(), [], []
    for size in sizes:
        part = max(1, size // 4 // world)
        whole = torch.zeros(part * world, device=clock.device)
        own, other = whole.new_zeros(part), torch.zeros_like(whole)
        calls = {
            "all_to_all": lambda a=other, b=whole: dist.all_to_all_single(a, b),
            "all_gather": lambda a=whole, b=own: dist.all_gather_into_tensor(a, b),
            "reduce_scatter": lambda a=own, b=whole: dist.reduce_scatter_tensor(a, b),
            "all_reduce": lambda a=whole: dist.all_reduce(a),
        }
        exact.append(4 * part * world)
        taken.append(clock.time(calls[kind]))
        measured.append({"kind": kind, "bytes": exact[-1], "ms": taken[-1]})
    return _bytes_line(exact, taken)


def machine_of(device: torch.device) -> dict[str, Any]:
    """What a calibration holds for."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": name,
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads_per_rank": torch.get_num_threads(),
    }


def versions_here() -> dict[str, str]:
    """Of Python and of what computes."""
    found = {d.name.replace("_", "-"): d.version for d in metadata.distributions()}
    return {"python": platform.python_version()} | {
        name: found[name] for name in _PACKAGES if name in found
    }
