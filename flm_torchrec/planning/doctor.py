"""What is wrong with this environment and machine, and the command that repairs it.

Example:
    for check in examine():
        print(check.status, check.name, check.detail, check.repair)
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from flm_torchrec.planning.check import Check
from flm_torchrec.planning.environment import check_environment, reinstall_command
from flm_torchrec.planning.machine import check_machine


def examine() -> list[Check]:
    """Check everything; nothing heavy is loaded before the versions are known to be right."""
    has_gpu = shutil.which("nvidia-smi") is not None
    environment = check_environment(has_gpu=has_gpu)
    return [*environment, *check_training(environment, has_gpu=has_gpu), *check_machine()]


def check_training(environment: Sequence[Check], *, has_gpu: bool) -> list[Check]:
    """Whether it all loads together, trains and communicates, tried in another process."""
    broken = [check.name for check in environment if check.status == "FAIL"]
    if broken:
        return [Check("training", "warn", f"not tried: first repair {', '.join(broken)}")]
    repair = reinstall_command(has_gpu=has_gpu)
    command = [sys.executable, "-m", "flm_torchrec.planning.probe"]
    probe = subprocess.run(command, capture_output=True, text=True, check=False)
    if probe.returncode:
        said = probe.stderr.strip() or f"died with exit code {probe.returncode}"
        return [Check("training", "FAIL", said.splitlines()[-1], repair)]
    return read_probe(json.loads(probe.stdout), repair, has_gpu=has_gpu)


def read_probe(seen: dict[str, Any], repair: str, *, has_gpu: bool) -> list[Check]:
    """The findings in what `planning.probe` printed."""

    def check(name: str, works: bool, good: str, bad: str) -> Check:
        return Check(name, "ok", good) if works else Check(name, "FAIL", bad, repair)

    losses = f"2 tables, 1 step, loss {seen['before']:.2f} -> {seen['after']:.2f}"
    checks = [
        check("training", seen["after"] < seen["before"], losses, f"does not learn: {losses}"),
        check("gloo", seen["gloo"], "works", "this torch has none"),
    ]
    if has_gpu:
        gpus = ", ".join(seen["cuda"])
        checks.append(check("cuda", bool(gpus), gpus, "nvidia-smi is here, torch finds no GPU"))
        checks.append(check("nccl", seen["nccl"], "available", "this torch has none"))
    else:
        checks.append(Check("cuda", "ok", "not needed: no NVIDIA GPU here"))
        checks.append(Check("nccl", "ok", "not needed: gloo on the CPU"))
    return checks
