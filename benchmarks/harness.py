"""What a benchmark leaves: benchmarks/results/AREA.json, with its setting and its bounds; and how
its parts are run, and ways measured in turn."""

import json
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
from flm_apps.run_folder import setting

from flm_torchrec.evaluation.bounds import as_table
from flm_torchrec.evaluation.report import plain
from flm_torchrec.files import atomic_file

RESULTS = Path(__file__).parent / "results"
Measured = tuple[list[dict[str, Any]], list[dict[str, Any]]]  # bounds, records
Asked = TypeVar("Asked")


def processor() -> str:
    """The processor's name where Linux tells it, else its kind."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def last_parts(area: str, key: str) -> dict[str, dict[str, Any]]:
    """What each part of an area gave last, by its name, which stands under `key`."""
    file = RESULTS / f"{area}.json"
    records = json.loads(file.read_text(encoding="utf-8"))["records"] if file.exists() else []
    return {record[key]: record for record in records}


def write_results(area: str, parts: Sequence[dict[str, Any]], *, command: str) -> Path:
    """Write the results of an area, of which each part has seconds and bounds; -> the file."""
    here = setting()
    results = {
        "command": command,
        "machine": here["machine"] | {"processor": processor()},
        "versions": here["versions"],
        "seconds": sum(part["seconds"] for part in parts),
        "bounds": [bound for part in parts for bound in part["bounds"]],
        "records": list(parts),
    }
    path = RESULTS / f"{area}.json"
    path.parent.mkdir(exist_ok=True)
    with atomic_file(path) as file:
        file.write_text(json.dumps(plain(results), indent=1) + "\n", encoding="utf-8")
    return path


def run_parts(
    area: str,
    parts: Mapping[str, Callable[[Asked], Measured]],
    asked: Asked,
    only: Sequence[str],
    *,
    command: str,
    is_try: bool,
) -> int:
    """Run the parts named in `only`, each given `asked`, and write what all of them gave last;
    -> 1 when a bound is missed. A try writes nothing, and misses nothing."""
    done = last_parts(area, "part")
    for name in only:
        begin = time.perf_counter()
        bounds, records = parts[name](asked)
        seconds = time.perf_counter() - begin
        done[name] = {"part": name, "seconds": seconds, "bounds": bounds, "records": records}
        if not is_try:
            write_results(area, [done[part] for part in parts if part in done], command=command)
    shown = only if is_try else [name for name in parts if name in done]
    bounds = [bound for name in shown for bound in done[name]["bounds"]]
    print(as_table(bounds))
    return int(not is_try and not all(bound["passed"] for bound in bounds))


def torchrun(ranks: int) -> list[str]:
    """The start of a command that runs a module on so many processes of this machine."""
    program = str(Path(sys.executable).parent / "torchrun")
    return [program, "--standalone", "--nproc-per-node", str(ranks), "-m", "--"]


def in_turn(
    ways: Sequence[Callable[[], float]], *, repeats: int
) -> tuple[list[float], list[list[float]]]:
    """Median seconds of each way and all of them, measured one after another, again and again.

    Each round has an order of its own, the same on all ranks: what comes after a way that fills
    the caches is slower, and by a fixed order that would always be the same one.
    """
    generator = np.random.default_rng(0)
    columns: list[list[float]] = [[] for _ in ways]
    for _ in range(1 + repeats):
        for way in generator.permutation(len(ways)):
            columns[way].append(ways[way]())
    columns = [column[1:] for column in columns]  # the first round warms up
    return [median(column) for column in columns], columns


def spread(seconds: Sequence[float]) -> list[float]:
    """The quartiles."""
    return np.quantile(seconds, [0.25, 0.75]).tolist()
