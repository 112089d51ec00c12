"""Checks of the machine: cores, memory, disk, shared memory, open files, torchrun.

Example:
    for check in check_machine():
        print(check.status, check.name, check.detail)
"""

import math
import os
import resource
import shlex
import shutil
import sys
from pathlib import Path

from flm_torchrec.planning.check import Check
from flm_torchrec.planning.environment import PIP, VERSIONS

_GIB = 2**30
_MORE_MEMORY = (
    "end other programs, or give the container more (docker update --memory 8g "
    "--memory-swap 8g NAME), or train on one rank: flm demo --ranks 1"
)
# Folder and files of a container's limit and use, and the part of its use that files only cache.
_CGROUPS = (
    (".", "memory.max", "memory.current", "inactive_file"),  # version 2
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def check_machine() -> list[Check]:
    """What two ranks of the demo need is here."""
    cores = len(os.sched_getaffinity(0))
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    shared = "mount -o remount,size=8G /dev/shm"
    return [
        Check("cores", "ok" if cores > 1 else "warn", f"{cores}"),
        at_least("memory", available_memory(), 6, 2, "GiB", _MORE_MEMORY),
        at_least("disk", free_space("."), 5, 1, "GiB", f"{PIP} cache purge"),
        at_least("shared memory", free_space("/dev/shm"), 1, 0.06, "GiB", shared),
        at_least("open files", files, 4096, 512, "files", "ulimit -n 65536"),
        check_torchrun(os.environ.get("PATH", "")),
    ]


def at_least(name: str, found: float, good: float, enough: float, unit: str, repair: str) -> Check:
    """ok from `good` on, FAIL below `enough`, warn between them."""
    detail = f"{round(found, 2):g} {unit}"
    if found >= good:
        return Check(name, "ok", detail)
    status = "warn" if found >= enough else "FAIL"
    return Check(name, status, f"{detail}; {good:g} {unit} are better", repair)


def available_memory() -> float:
    """GiB that processes may still take, within the limit of a container."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) / 2**20 for line in lines if "MemAvailable" in line)
    return min(available, container_memory(Path("/sys/fs/cgroup")))


def container_memory(cgroups: Path) -> float:
    """GiB that a container's limit leaves beside what it holds now; infinite without a limit.

    Cached files count as free, as they do in MemAvailable.
    """
    for folder, limit, used, cached in _CGROUPS:
        place = cgroups / folder
        if not (place / limit).exists() or not (place / used).exists():
            continue
        most = (place / limit).read_text().strip()
        if not most.isdigit():  # "max"
            continue
        stat = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
        held = int((place / used).read_text()) - int(stat.get(cached, 0))
        return max(0.0, int(most) - held) / _GIB
    return math.inf


def free_space(folder: str) -> float:
    """GiB free in a folder; 0 where it does not exist."""
    return shutil.disk_usage(folder).free / _GIB if Path(folder).exists() else 0.0


def check_torchrun(path: str) -> Check:
    """The torchrun that PATH finds is the one of this environment."""
    folder = Path(sys.executable).parent
    if not (folder / "torchrun").exists():
        repair = f"{PIP} install --force-reinstall --no-deps torch=={VERSIONS['torch']}"
        return Check("torchrun", "FAIL", f"not in {folder}", repair)
    found = shutil.which("torchrun", path=path)
    if found and Path(found).parent == folder:
        return Check("torchrun", "ok", found)
    detail = f"PATH finds {found or 'none'}, not that of {folder}; only flm's components will"
    return Check("torchrun", "warn", detail, f'export PATH={shlex.quote(str(folder))}:"$PATH"')
