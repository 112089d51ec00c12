"""Time a training step of a few tables under each sharding type.

Start it with `torchx run -s local_cwd flm.bench_sharding -j 1x2`, with torchrun, or alone. A repeat
is one step of TrainPipelineSparseDist after a barrier; it took what its slowest rank took.
"""

import argparse
import gc
import json
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from flm_benchmarks.harness import processor
from flm_benchmarks.sharding.model import IDS_PER_BAG, PooledModel, Work, batches
from torch.distributed.elastic.multiprocessing.errors import record

from flm_torchrec.errors import UserError, app
from flm_torchrec.files import atomic_file
from flm_torchrec.training.pipeline import train_pipeline
from flm_torchrec.training.runtime import Runtime, all_gather, barrier, start
from flm_torchrec.training.sharding import SHARDING_TYPES, shard

WARMUP = 5
COLUMNS = ("sharding", "median_ms", "p90_ms", "samples_per_s", "table_gb_per_s")


def step_seconds(runtime: Runtime, work: Work, sharding: str, steps: int) -> torch.Tensor:
    """-> (steps,) seconds, each of the slowest rank."""
    torch.manual_seed(0)
    dmp, optimizer = shard(
        PooledModel(work),
        runtime.device,
        batch_size=work.batch_size // runtime.world_size,
        sparse_optimizer="rowwise_adagrad",
        sparse_lr=0.05,
        dense_optimizer=lambda named: torch.optim.AdamW([p for _, p in named], lr=1e-3),
        default=sharding,
    )
    pipeline = train_pipeline(dmp, optimizer, runtime.device)
    source = batches(work, runtime.rank, runtime.world_size)
    seconds = []
    for _ in range(WARMUP + steps):
        barrier()
        begin = perf_counter()
        pipeline.progress(source)
        if runtime.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(perf_counter() - begin)
    mine = torch.tensor([seconds[WARMUP:]], dtype=torch.float64)  # (1, steps)
    return all_gather(mine).amax(0)


def measure(runtime: Runtime, work: Work, sharding: str, steps: int) -> dict[str, Any]:
    """The figures of one sharding type, or the reason why there are none."""
    try:
        seconds = step_seconds(runtime, work, sharding, steps)
    except Exception as error:
        told = str(error).strip() or "no message"
        return {"sharding": sharding, "reason": f"{type(error).__name__}: {told.splitlines()[0]}"}
    median, p90 = torch.quantile(seconds, torch.tensor([0.5, 0.9], dtype=torch.float64)).tolist()
    return {
        "sharding": sharding,
        "median_ms": round(1e3 * median, 3),
        "p90_ms": round(1e3 * p90, 3),
        "samples_per_s": round(work.batch_size / median, 1),
        "table_gb_per_s": round(work.table_bytes() / median / 1e9, 4),
    }


def setting(runtime: Runtime, work: Work, steps: int) -> dict[str, Any]:
    """What the figures depend on."""
    packages = ("torch", "torchrec", "fbgemm-gpu-cpu", "fbgemm-gpu")
    installed = {found.name.replace("_", "-"): found.version for found in metadata.distributions()}
    return {
        "benchmark": "sharding",
        "world_size": runtime.world_size,
        "batch_size": work.batch_size,
        "tables": work.tables,
        "rows": work.rows,
        "dim": work.dim,
        "ids_per_bag": IDS_PER_BAG,
        "steps": steps,
        "warmup": WARMUP,
        "table_bytes": round(work.table_bytes()),
        "versions": {name: installed[name] for name in packages if name in installed},
        "machine": {
            "device": torch.cuda.get_device_name() if runtime.device.type == "cuda" else "cpu",
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "threads_per_rank": torch.get_num_threads(),
            "system": platform.platform(),
        },
    }


def as_table(lines: Sequence[dict[str, Any]]) -> str:
    """The figures below each other, the types without any last, with the reason."""
    rows = [COLUMNS] + [
        tuple(str(line[column]) for column in COLUMNS) for line in lines if "reason" not in line
    ]
    widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS))]
    told = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(
        told + [f"{line['sharding']}: {line['reason']}" for line in lines if "reason" in line]
    )


def positive(text: str) -> int:
    """An argument that is a whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}; allowed: 1 or more")
    return value


@record
@app
def main(argv: Sequence[str] | None = None) -> int:
    """Measure every type; rank 0 prints one JSON line each and a table; 1 when none has figures."""
    parser = argparse.ArgumentParser(prog="flm bench-sharding", description=__doc__)
    parser.add_argument("--batch-size", type=positive, default=1024, help="samples, all ranks")
    parser.add_argument("--steps", type=positive, default=30, help="timed repeats of a type")
    parser.add_argument("--rows", type=positive, default=100_000, help="rows of a table")
    parser.add_argument("--dim", type=positive, default=64, help="numbers in a row")
    parser.add_argument("--tables", type=positive, default=4)
    parser.add_argument("--out", type=Path, help="write the JSON lines there too")
    args = parser.parse_args(argv)
    work = Work(tables=args.tables, rows=args.rows, dim=args.dim, batch_size=args.batch_size)
    with start() as runtime:
        if work.batch_size % runtime.world_size:
            raise UserError(
                f"--batch-size: {work.batch_size} can't be shared by {runtime.world_size} ranks; "
                f"allowed: a multiple of {runtime.world_size}"
            )
        place = setting(runtime, work, args.steps)
        lines = []
        for sharding in SHARDING_TYPES:
            lines.append(measure(runtime, work, sharding, args.steps))
            gc.collect()  # the tables of the last one
            if runtime.rank == 0:
                print(json.dumps({**place, **lines[-1]}), flush=True)
        if runtime.rank == 0:
            print(as_table(lines))
            if args.out is not None:
                with atomic_file(args.out) as file:
                    text = "".join(json.dumps({**place, **line}) + "\n" for line in lines)
                    file.write_text(text, encoding="utf-8")
    return int(all("reason" in line for line in lines))


if __name__ == "__main__":
    raise SystemExit(main())
