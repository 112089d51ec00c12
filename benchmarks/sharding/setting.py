"""The setting of a line of the sharding benchmark: what was measured, where and with what."""

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from flm_benchmarks.harness import processor
from flm_benchmarks.sharding.lines import BENCHMARK, SCHEMA, Line
from flm_benchmarks.sharding.measure import Work
from flm_benchmarks.sharding.point import Point
from torchrec.distributed.comm import get_local_size

from flm_torchrec.evaluation.report import plain
from flm_torchrec.training.runtime import Runtime

_PACKAGES = ("torch", "torchrec", "fbgemm-gpu-cpu", "fbgemm-gpu", "numpy", "flm-torchrec")


def setting(work: Work, point: Point, world_size: int) -> Line:
    """What was measured, but for the machine."""
    return plain(
        {
            "point": asdict(point),
            "name": work.name,
            "tables": [asdict(table) for table in work.tables],
            "log": work.log_name,
            "optimizer": work.optimizer,
            "calibration": None if work.calibration is None else work.calibration.created,
            "seed": work.seed,
            "steps": work.steps,
            "warmup": work.warmup,
            "world_size": world_size,
            "local_world_size": get_local_size(),
        }
    )


def place(runtime: Runtime) -> Line:
    """Where and with what it was measured."""
    installed = {found.name.replace("_", "-"): found.version for found in metadata.distributions()}
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    is_gpu = runtime.device.type == "cuda"
    return {
        "machine": {
            "device": torch.cuda.get_device_name(runtime.device) if is_gpu else "cpu",
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "threads_per_rank": torch.get_num_threads(),
            "memory_gib": round(pages * page / 2**30),
            "system": platform.platform(),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: installed[name] for name in _PACKAGES if name in installed},
            "commit": _commit(),
        },
    }


def _commit() -> str | None:
    """That of the checkout that runs; None outside of one."""
    told = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or None


def make_line(
    status: str, of_setting: Line, where: Mapping[str, Any], entries: Mapping[str, Any]
) -> Line:
    """A line of today."""
    return {
        "benchmark": BENCHMARK,
        "schema": SCHEMA,
        "status": status,
        "setting": of_setting,
        **where,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **plain(entries),
    }
