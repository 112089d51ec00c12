"""Lines of the sharding benchmark as a job would have written them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from flm_benchmarks.sharding.figures import figures_of
from flm_benchmarks.sharding.lines import BENCHMARK, SCHEMA
from flm_benchmarks.sharding.timing import Spread

MACHINE = {
    "device": "cpu",
    "processor": "one",
    "cores": 2,
    "threads_per_rank": 1,
    "memory_gib": 8,
    "system": "Linux 1",
}
TABLE = {
    "name": "a",
    "rows": 9,
    "dim": 4,
    "pooling": 1.0,
    "features": [],
    "is_weighted": False,
    "dtype": "fp32",
}


def line(
    sharding: str = "table_wise",
    *,
    kernel: str = "fused",
    pipeline: str = "sparse_dist",
    world_size: int = 2,
    seconds: float = 0.01,
    steps: int = 30,
    status: str = "measured",
    machine: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A line whose step takes about `seconds`, one part in a hundred more or less."""
    made: dict[str, Any] = {
        "benchmark": BENCHMARK,
        "schema": SCHEMA,
        "status": status,
        "setting": {
            "point": {
                "sharding": sharding,
                "kernel": kernel,
                "dtype": "fp32",
                "pipeline": pipeline,
                "batch_size": 64,
                "rows": None,
                "pooling": None,
                "ids": "uniform",
            },
            "name": "small",
            "tables": [TABLE],
            "calibration": None,
            "log": None,
            "optimizer": "rowwise_adagrad",
            "seed": 0,
            "steps": steps,
            "warmup": 5,
            "world_size": world_size,
            "local_world_size": world_size,
        },
        "machine": machine or MACHINE,
        "versions": {"torch": "2"},
        "time": "2026-01-01T00:00:00+00:00",
    }
    if status != "measured":
        return made | {"reason": "RuntimeError: out of memory", "rank": 1}
    generator = torch.Generator().manual_seed(0)
    noise = 1 + 0.01 * torch.randn(world_size, steps, generator=generator, dtype=torch.float64)
    whole = seconds * noise
    figures, repeats = figures_of(
        whole,
        whole[:, :, None].expand(-1, -1, 4) / 4,
        samples=64,
        lookups=640.0,
        useful=1e6,
        copy=Spread(1e9, 0.9e9, 1.1e9, 1.2e9),
        sent=torch.ones(world_size, 3, dtype=torch.float64),
        peaks=torch.full((world_size, 1), 2.0**30, dtype=torch.float64),
    )
    parts = {"forward": 2.0}
    predicted = {"step_ms": 500 * seconds, "ranks_ms": [parts], "shards": 1}
    return made | {"figures": figures | {"predicted": predicted}, "repeats": repeats, "plan": []}


def write(path: Path, lines: Sequence[dict[str, Any]]) -> Path:
    """-> `path`, which holds the lines."""
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")
    return path
