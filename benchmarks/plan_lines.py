"""The lines of measured plans, and the calibration that they were planned by, beside them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from flm_benchmarks.sharding.lines import append, mend

from flm_torchrec.planning.calibrate import calibrate, machine_of, versions_here
from flm_torchrec.planning.calibration import Calibration, read_calibration, write_calibration
from flm_torchrec.training.runtime import Runtime, barrier


def current(lines: Sequence[dict[str, Any]], created: str) -> list[dict[str, Any]]:
    """Those by one calibration, which stands for machine and versions."""
    return [line for line in lines if line["calibration"] == created]


class Journal:
    """The lines of a file by one calibration, which rank 0 writes and all ranks know."""

    def __init__(self, path: Path, runtime: Runtime, calibration: Calibration) -> None:
        self._path, self._rank, self._created = path, runtime.rank, calibration.created
        held: list[Any] = [None]
        if runtime.rank == 0:
            if path.exists():
                mend(path)
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            held = [[json.loads(line) for line in text.splitlines()]]
        dist.broadcast_object_list(held, 0)
        self._lines: list[dict[str, Any]] = current(held[0], calibration.created)

    def has(self, mix: str, plan: str | None) -> bool:
        """Whether there is a line of a plan, or with None of the whole mix."""
        return any(line["mix"] == mix and line.get("plan") == plan for line in self._lines)

    def medians(self, mix: str) -> Mapping[str, float]:
        """Milliseconds by plan."""
        return {
            line["plan"]: line["ms"]
            for line in self._lines
            if line["mix"] == mix and "plan" in line
        }

    def add(self, line: dict[str, Any]) -> None:
        """Keep a line."""
        line = {"calibration": self._created, **line}
        self._lines.append(line)
        if self._rank == 0:
            append(self._path, line)
            print(json.dumps(line), flush=True)


def read_plans(path: Path) -> list[dict[str, Any]]:
    """The lines of a file by the calibration that lies beside it."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return current(lines, read_calibration(calibration_of(path)).created)


def calibration_of(path: Path) -> Path:
    """Where that of a file of lines lies."""
    return path.with_suffix(".calibration.json")


def calibrated(path: Path, runtime: Runtime, *, repeats: int, is_short: bool) -> Calibration:
    """The calibration in a file, measured unless it is there and of this machine."""
    held: list[Calibration | None] = [None]
    if runtime.rank == 0 and path.exists():
        held = [read_calibration(path)]
    dist.broadcast_object_list(held, 0)
    here = machine_of(runtime.device), versions_here()
    if held[0] is None or (held[0].machine, held[0].versions) != here:
        found = calibrate(runtime, repeats=repeats, is_short=is_short)
        if runtime.rank == 0:
            write_calibration(path, found)
        barrier()
    return read_calibration(path)
