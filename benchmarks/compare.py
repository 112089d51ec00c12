"""Compare two runs of the sharding benchmark, line by line; exit 1 where one has become slower.

The repeats of a line are paired by their place, since both runs had the same batches there. A line
is slower when the median of the ratios is above the allowed one and its 99% interval above 1.

Example:
    python benchmarks/compare.py before.jsonl after.jsonl
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flm_benchmarks.sharding.lines import Line, busy, machine_key, name_of, read_lines
from numpy.typing import NDArray

from flm_torchrec.errors import UserError, app

ALLOWED = 0.1  # slow-down that is not told apart from the machine's own moods
LEAST_REPEATS = 5
_RESAMPLES = 2000
_INTERVAL = (0.005, 0.995)
_NOT_COMPARED = ("steps", "warmup", "calibration")  # what is measured, not how or by what plan
STEP = "step"


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of new over old seconds: above 1 is slower."""

    median: float
    low: float
    high: float

    def is_slower(self, allowed: float) -> bool:
        """Whether it is beyond what is allowed and beyond chance."""
        return self.median > 1 + allowed and self.low > 1

    def __str__(self) -> str:
        return f"{self.median:.3f}x ({self.low:.3f}-{self.high:.3f})"


def paired_ratio(old: Sequence[float], new: Sequence[float]) -> Ratio:
    """The median ratio of pairs and its interval, by resampling them with a fixed seed."""
    count = min(len(old), len(new))
    logs: NDArray[np.float64] = np.log(np.array(new[:count]) / np.array(old[:count]))
    chosen = np.random.default_rng(0).integers(count, size=(_RESAMPLES, count))
    low, high = np.quantile(np.median(logs[chosen], axis=1), _INTERVAL)
    return Ratio(*np.exp([np.median(logs), low, high]).tolist())


def compared(old: Line, new: Line, allowed: float) -> tuple[bool, str]:
    """-> whether the line has become worse, and what to tell of it."""
    name = name_of(new)
    if old["status"] != "measured":
        return False, f"{name}: was {old['status']}, is {new['status']}"
    if new["status"] != "measured":
        return True, f"{name}: was measured, is {new['status']}: {new['reason']}"
    ratios = {
        phase: paired_ratio(seconds, new["repeats"][phase])
        for phase, seconds in old["repeats"].items()
        if phase in new["repeats"] and min(map(min, (seconds, new["repeats"][phase]))) > 0
    }
    step = ratios[STEP]
    is_slower = step.is_slower(allowed)
    told = f"{name}: {'SLOWER ' if is_slower else ''}{step}"
    slow = [f"{phase} {ratio}" for phase, ratio in ratios.items() if ratio.is_slower(allowed)]
    if is_slower and slow[1:]:
        told += f"; by part: {', '.join(slow[1:])}"
    return is_slower, told


def by_setting(path: Path) -> dict[str, Line]:
    """The lines of a file by what they measured; the last of each."""
    return {
        json.dumps(
            {key: value for key, value in line["setting"].items() if key not in _NOT_COMPARED},
            sort_keys=True,
        ): line
        for line in read_lines(path)
    }


def check_machines(old: Mapping[str, Line], new: Mapping[str, Line]) -> None:
    """UserError where two lines of one setting are of different machines."""
    for key in old.keys() & new.keys():
        one, other = old[key]["machine"], new[key]["machine"]
        if machine_key(one) != machine_key(other):
            differing = ", ".join(
                f"{field} {one.get(field)} and {other.get(field)}"
                for field in sorted(one.keys() | other.keys())
                if field != "system" and one.get(field) != other.get(field)
            )
            raise UserError(
                f"{name_of(new[key])}: measured on different machines ({differing}); "
                "--any-machine compares them all the same"
            )


def check_repeats(lines: Mapping[str, Line], path: Path) -> None:
    """UserError where a line has too few repeats to say anything."""
    for line in lines.values():
        if line["status"] != "measured":
            continue
        if not line.get("repeats", {}).get(STEP):
            raise UserError(f"{path}: {name_of(line)}: has no repeats of a {STEP}")
        count = len(line["repeats"][STEP])
        if count < LEAST_REPEATS:
            raise UserError(
                f"{path}: {name_of(line)}: {count} repeats; allowed: {LEAST_REPEATS} or more"
            )


def _together(old: Mapping[str, Line], new: Mapping[str, Line], both: Sequence[str]) -> str:
    """The median ratio of all lines: far from 1, it is the machine's or everything's."""
    pairs = [(old[key], new[key]) for key in both]
    medians = [
        paired_ratio(one["repeats"][STEP], other["repeats"][STEP]).median
        for one, other in pairs
        if one["status"] == other["status"] == "measured"
    ]
    return f"; all together {np.median(medians):.3f}x" if medians else ""


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Print a line each; 1 when one has become slower, 2 when they can't be compared."""
    parser = argparse.ArgumentParser(prog="compare.py", description=__doc__)
    parser.add_argument("old", type=Path, help="JSON lines of the sharding benchmark")
    parser.add_argument("new", type=Path, help="those to be judged")
    parser.add_argument("--any-machine", action="store_true", help="also of different machines")
    parser.add_argument("--allowed", type=float, default=ALLOWED, help="slow-down, a share of 1")
    args = parser.parse_args(argv)
    if not 0 <= args.allowed < math.inf:
        raise UserError(f"--allowed: {args.allowed}; allowed: 0 or more, as 0.1 for 10%")
    old, new = by_setting(args.old), by_setting(args.new)
    both = [key for key in old if key in new]
    if not both:
        raise UserError(f"{args.old}, {args.new}: have no setting in common")
    if not args.any_machine:
        check_machines(old, new)
    check_repeats({key: old[key] for key in both}, args.old)
    check_repeats({key: new[key] for key in both}, args.new)
    judged = [
        compared(old[key], new[key], args.allowed)
        for key in both
        if "measured" in (old[key]["status"], new[key]["status"])
    ]
    for _, told in judged:
        print(told)
    for path, lines, others in ((args.new, old, new), (args.old, new, old)):
        for key in lines.keys() - others.keys():
            print(f"{name_of(lines[key])}: not in {path}")
    worse = [told for is_worse, told in judged if is_worse]
    if remark := busy([*old.values(), *new.values()]):
        print(f"beware: {remark}")
    print(f"{len(judged)} lines compared, {len(worse)} worse{_together(old, new, both)}")
    return int(bool(worse))


if __name__ == "__main__":
    raise SystemExit(main())
