"""Does any data train as it should, and fast: click logs against a hand-written DLRM, `prepare`,
and the loader. Writes benchmarks/results/data.json; 1 when a bound is missed.

Run it with `python -m flm_benchmarks.data`; `--only` runs some of the parts and keeps the others'
figures of the last time.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from flm_benchmarks.click_models import compare
from flm_benchmarks.harness import Measured, run_parts
from flm_benchmarks.loader import measure

from flm_torchrec.errors import app
from flm_torchrec.evaluation.bounds import checked

CONFIGS = Path(__file__).parent / "configs"
SEEDS = (0, 1, 2)
PREPARED_ROWS = 20_000_000
# Of each log: kind, users, items, interactions.
LOGS = {
    "criteo-like": ("context", 0, 0, 2_000_000),
    "clicks-like": ("impressions", 20_000, 5_000, 1_000_000),
    "sequences": ("sequence", 200_000, 50_000, PREPARED_ROWS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the parts work, and whether in miniature."""

    work: Path  # for the logs
    quick: bool = False

    @property
    def divisor(self) -> int:
        """Of users, items and interactions."""
        return 50 if self.quick else 1

    @property
    def seeds(self) -> Sequence[int]:
        """Of the models that are trained."""
        return SEEDS[:1] if self.quick else SEEDS


def log(at: Place, name: str) -> Path:
    """The folder of a synthetic log, made unless it is there."""
    folder = at.work / ("quick" if at.quick else "") / name
    if not folder.exists():
        kind, *sizes = LOGS[name]
        users, items, interactions = (size // at.divisor for size in sizes)
        command = ["flm", "data", "fetch", "synthetic", "--kind", kind, "--out", str(folder)]
        command += ["--interactions", str(interactions), "--seed", "0"]
        if users:
            command += ["--users", str(users), "--items", str(items)]
        print(f"$ {shlex.join(command)}", flush=True)
        measured(command)
    return folder


def measured(command: list[str]) -> tuple[float, float]:
    """Run a command of ours; -> seconds, and the most memory it held, in GiB."""
    begin = time.perf_counter()
    process = subprocess.Popen([Path(sys.executable).parent / command[0], *command[1:]])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - begin, usage.ru_maxrss / 2**20


def prepared(at: Place) -> Measured:
    """`flm data prepare` of a sequence folder that nobody prepared before."""
    folder, rows = log(at, "sequences"), PREPARED_ROWS // at.divisor
    for made in ("prepared", "splits"):
        shutil.rmtree(folder / made, ignore_errors=True)
    seconds, gib = measured(["flm", "data", "prepare", str(folder)])
    rate = rows / seconds
    record = {"rows": rows, "seconds": seconds, "rows_per_s": rate, "peak_gib": gib}
    bounds = [
        checked("prepare, interactions/s", rate, ">=", 500_000),
        checked("prepare 20M interactions, peak GiB", gib, "<", 4.0),
    ]
    return bounds, [record]


def criteo(at: Place) -> Measured:
    """Context alone: AUC and speed against the DLRM."""
    folder = log(at, "criteo-like")
    records = [compare(folder, CONFIGS / "criteo.yaml", seed=seed) for seed in at.seeds]
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    behind = fmean(r["dlrm"]["auc_click"] - r["flm"]["auc_click"] for r in records)
    ratio = median(r["speed_ratio"] for r in records)
    bounds = [
        checked("criteo-like, test AUC below the DLRM", behind, "<=", 0.002),
        checked("criteo-like, samples/s against the DLRM", ratio, ">=", 0.9),
    ]
    return bounds, [*records, truth]


def clicks(at: Place) -> Measured:
    """Click and conversion: AUC against the DLRM and against the planted optimum."""
    folder = log(at, "clicks-like")
    records = [compare(folder, CONFIGS / "clicks.yaml", seed=seed) for seed in at.seeds]
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    bounds = []
    for label in ("click", "conversion"):
        ours = fmean(r["flm"][f"auc_{label}"] for r in records)
        theirs = fmean(r["dlrm"][f"auc_{label}"] for r in records)
        best = truth["best_auc"][label]["test"]
        bounds += [
            checked(f"clicks-like, test AUC of {label} below the DLRM", theirs - ours, "<=", 0.003),
            checked(f"clicks-like, AUC of {label} below the optimum", best - ours, "<=", 0.02),
        ]
    return bounds, [*records, truth]


def loading(at: Place) -> Measured:
    """The loader alone and in training, on a log and on sequences."""
    movies, pairs = at.work / "ml-100k", 2 if at.quick else 30
    if not movies.exists():
        measured(["flm", "data", "fetch", "movielens-100k", "--out", str(movies)])
    records = [
        measure(CONFIGS / "criteo.yaml", log(at, "criteo-like"), pairs=pairs),
        measure(CONFIGS / "sequences.yaml", movies, pairs=pairs),
    ]
    bounds = []
    for record in records:
        name = record["config"].removesuffix(".yaml")
        faster, ratio = record["loader_against_step"], record["step_ratio"]
        bounds += [
            checked(f"{name}, loader alone against a step", faster, ">=", 5.0),
            checked(f"{name}, step with the loader against in memory", ratio, "<=", 1.05),
        ]
    return bounds, records


PARTS: dict[str, Callable[[Place], Measured]] = {
    "prepare": prepared,
    "criteo": criteo,
    "clicks": clicks,
    "loader": loading,
}


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for and write what all of them gave last."""
    parser = argparse.ArgumentParser(prog="python -m flm_benchmarks.data", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("data/benchmark"), help="for the logs")
    parser.add_argument(
        "--quick", action="store_true", help="small logs, for a try: no results, no exit code"
    )
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    args = parser.parse_args(argv)
    at = Place(work=args.work, quick=args.quick)
    return run_parts(
        "data",
        PARTS,
        at,
        args.only,
        command="python -m flm_benchmarks.data",
        is_try=args.quick,
    )


if __name__ == "__main__":
    raise SystemExit(main())
