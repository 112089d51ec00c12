"""What is lost by rows in fp16, or sent between two ranks in fewer bytes? Validation NDCG@10 on
MovieLens-100K, by the recipe of the ranking benchmark in fewer steps and without its linear path,
which is no table. Writes benchmarks/results/precision.json; exits with 2 when work is left.

Run it with `python benchmarks/precision.py` until it is done: a run that was trained and scored is
not again (it lies in `--work`), one that was cut off goes on where it stopped, and nothing is begun
after `--minutes`. `--quick` takes one seed and 10 steps, for a try, and writes no results.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from flm_apps.run_folder import read_report
from flm_apps.trained import load_run
from flm_benchmarks.harness import last_parts, write_results
from flm_benchmarks.ours import CONFIGS
from flm_benchmarks.peers.units import OUT_OF_TIME, SEEDS, OutOfTimeError
from flm_benchmarks.quality import data_folder
from flm_benchmarks.runs import Runs

from flm_torchrec.errors import app
from flm_torchrec.files import atomic_file
from flm_torchrec.measure import ranking_quality
from flm_torchrec.training.runtime import start

RANKS = 2
FIGURE = "ndcg@10"
STEPS, _QUICK_STEPS = 700, 10  # of the recipe's 2,000: thirty runs are trained
_SENT = "train.sparse.communication"
# Each beside fp32 under the same plan: shards of another plan begin with other numbers.
PARTS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "table_wise": {
        "fp32": {},
        "rows fp16": {"train.sparse.dtype": "fp16"},
        "sent fp16": {_SENT: "fp16"},
        "sent bf16": {_SENT: "bf16"},
        "sent int8": {_SENT: "int8"},
        "rows fp16, sent int8": {"train.sparse.dtype": "fp16", _SENT: "int8"},
    },
    "row_wise": {
        "fp32": {},
        "rows fp16": {"train.sparse.dtype": "fp16"},
        "sent fp16": {_SENT: "fp16"},
        "sent bf16": {_SENT: "bf16"},
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the runs are, and until when one may begin."""

    runs: Runs
    data: Path
    until: float  # by time.monotonic


def unit(at: Place, sharding: str, setting: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The figures of one run, trained and scored unless it was; OutOfTimeError past the time.

    It is scored by one process, which sends nothing: what counts is what was learned.
    """
    told = {"sharding.default": sharding, "views.linear": None, **setting}
    run = at.runs.folder_of(at.data, told, seed)
    file = run / "quality.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    if time.monotonic() > at.until:
        raise OutOfTimeError(run)
    begin = time.perf_counter()
    at.runs.trained(at.data, told, seed)
    with start() as runtime:
        quality = ranking_quality(load_run(run, runtime), part="validation").mean[FIGURE]
    report = read_report(run)
    found = {
        "seed": seed,
        FIGURE: float(quality),
        "train_seconds": report["seconds"]["train"],
        "plan": sorted({(table["sharding_type"], table["dtype"]) for table in report["plan"]}),
        "seconds": time.perf_counter() - begin,
    }
    with atomic_file(file) as temporary:
        temporary.write_text(json.dumps(found), encoding="utf-8")
    return found


def part(at: Place, sharding: str, seeds: Sequence[int]) -> dict[str, Any]:
    """All ways under one sharding type; -> the part of the results."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, setting in PARTS[sharding].items():
        found[name] = [unit(at, sharding, setting, seed) for seed in seeds]
    whole = [float(one[FIGURE]) for one in found["fp32"]]
    ways = [way(name, told, whole) for name, told in found.items()]
    seconds = sum(one["seconds"] for told in found.values() for one in told)
    return {"part": sharding, "ranks": RANKS, "seconds": seconds, "bounds": [], "ways": ways}


def way(name: str, told: Sequence[Mapping[str, Any]], whole: Sequence[float]) -> dict[str, Any]:
    """Mean and spread over the seeds, and what is gained over fp32 with its standard error.

    Runs of a seed begin with the same numbers and see the same batches: they are compared in pairs.
    """
    own = [float(one[FIGURE]) for one in told]
    gains = [mine - theirs for mine, theirs in zip(own, whole, strict=True)]
    return {
        "name": name,
        "mean": fmean(own),
        "spread": stdev(own) if len(own) > 1 else None,
        "gain": fmean(gains),
        "gain_error": stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else None,
        "runs": list(told),
    }


def as_text(found: Mapping[str, Any]) -> str:
    """A line a way."""
    lines = [f"\n{found['part']}, {found['ranks']} ranks: validation {FIGURE} (gain over fp32)"]
    for row in found["ways"]:
        error = "" if row["gain_error"] is None else f" +- {row['gain_error']:.5f}"
        lines.append(f"  {row['name']:<22} {row['mean']:.4f} ({row['gain']:+.5f}{error})")
    return "\n".join(lines)


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Train what isn't trained, and write what is complete."""
    parser = argparse.ArgumentParser(prog="python benchmarks/precision.py", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="of data folders")
    parser.add_argument("--work", type=Path, default=Path("data/precision"), help="for the runs")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=30, help="begin nothing after them")
    parser.add_argument("--quick", action="store_true", help="one seed, 10 steps, no results")
    args = parser.parse_args(argv)
    until = time.monotonic() + 60 * args.minutes
    steps = _QUICK_STEPS if args.quick else STEPS
    runs = Runs(config=CONFIGS / "ranking.yaml", folder=args.work, steps=steps, ranks=RANKS)
    at = Place(runs=runs, data=data_folder(args.data, "ml-100k"), until=until)
    parts, left = last_parts("precision", "part"), []
    for name in args.only:
        try:
            found = part(at, name, SEEDS[:1] if args.quick else SEEDS)
        except OutOfTimeError:
            left.append(name)
            continue
        print(as_text(found))
        parts[name] = found
        if not args.quick:
            kept = [parts[one] for one in PARTS if one in parts]
            write_results("precision", kept, command="python benchmarks/precision.py")
    if left:
        print(f"left: {', '.join(left)}; run the same again to go on")
    return OUT_OF_TIME if left else 0


if __name__ == "__main__":
    raise SystemExit(main())
