"""Does the method rank, rate and start cold better than what people use? Every choice is made on
validation, peers are tuned on the same splits, and all are judged by one metric on the test.
Writes benchmarks/results/quality.json; exits with 1 when a bound is missed, with 2 when work is
left.

Run it with `python benchmarks/quality.py` until it is done: what was answered is not asked again
(it lies in benchmarks/results/answers: name another folder by `--answers` to measure all anew), and
nothing is begun after `--minutes`. `--quick` takes the first of all settings and parts, and one
seed, and writes no results.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from flm_apps import data as data_app
from flm_apps.run_folder import BUNDLED
from flm_benchmarks import stages
from flm_benchmarks.ablation import ablated
from flm_benchmarks.ablation import as_text as ablation_text
from flm_benchmarks.folders import thinned
from flm_benchmarks.harness import RESULTS, last_parts, write_results
from flm_benchmarks.ours import CONFIGS, SETTINGS, variants_of
from flm_benchmarks.peers.measured import EARLIER, measured
from flm_benchmarks.peers.split_log import SplitLog
from flm_benchmarks.peers.splits import write_splits
from flm_benchmarks.peers.units import GRID, OUT_OF_TIME, SEEDS, OutOfTimeError
from flm_benchmarks.runs import Runs
from flm_benchmarks.verdicts import as_text, bounds_of, contests

from flm_torchrec.errors import UserError, app
from flm_torchrec.evaluation.bounds import as_table

PEERS = Path(__file__).parents[1] / ".venv-peers" / "bin" / "python"
HEADLINE = "ranking_last"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a suite works, and how long."""

    data: Path  # of data folders
    work: Path  # for what is made on the way
    kept: Path  # of answers
    quick: bool
    until: float  # by time.monotonic
    steps: int | None = None  # of our runs, for a try

    def answers(self, suite: str) -> Path:
        """The folder of what was answered; a quick one's is another."""
        return (self.work / "quick" if self.quick else self.kept) / suite


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A question to ours and to the peers."""

    family: str
    data: str
    split: str
    required: dict[str, dict[str, Any]] = field(default_factory=dict)  # by family, of the answers
    grid: str = ""  # a section of the settings; without it the family's

    @property
    def section(self) -> str:
        """Of the settings that peers and ours are tuned over."""
        return self.grid or self.family


SUITES = {
    HEADLINE: Suite(
        family="ranking",
        data="ml-100k",
        split="last",
        required={"ranking": {"times": 1.3, "low": 1.1}, EARLIER: {"times": 1}},
    ),
    "ranking_time": Suite(
        family="ranking", data="ml-100k", split="time", required={"ranking": {"times": 1}}
    ),
    "ranking_latest": Suite(
        family="ranking",
        data="latest",
        split="last",
        required={"ranking": {"times": 1.15}},
        grid="ranking_latest",
    ),
    "cold_items": Suite(
        family="cold_items",
        data="ml-100k",
        split="cold_items",
        required={"cold_items": {"times": 1.05}},
    ),
    "cold_users": Suite(
        family="cold_users",
        data="ml-100k",
        split="cold_users",
        required={"cold_users": {"times": 1}},
    ),
    "clicks": Suite(
        family="clicks", data="ml-100k", split="random", required={"clicks": {"ahead": 0.003}}
    ),
    "ratings": Suite(
        family="ratings", data="ml-100k", split="random", required={"ratings": {"most": 0.905}}
    ),
}
_PLOTS = "flm data convert movielens ml-latest-small --plots ml-1m-movie-plots.dat"


def data_folder(data: Path, name: str) -> Path:
    """A data folder; MovieLens-100K is fetched unless it is there."""
    folder = data / name
    if not folder.exists() and name == "ml-100k":
        data_app.main(["fetch", "movielens-100k", "--out", str(folder)])
    if not folder.exists():
        raise UserError(f"{folder}: is not there; make it with `{_PLOTS} --out {folder}`")
    return folder


def answered(python: Path | str, module: Sequence[str], split: Path, out: Path, at: Place) -> None:
    """Have a family's recommenders answer what they haven't; OutOfTimeError when some are left."""
    minutes = max(0.0, (at.until - time.monotonic()) / 60)
    command = [str(python), "-m", *module, "--split", str(split), "--out", str(out)]
    command += ["--minutes", str(minutes), *(["--quick"] if at.quick else [])]
    code = subprocess.run(command).returncode
    if code == OUT_OF_TIME:
        raise OutOfTimeError(out)
    if code:
        raise UserError(f"{' '.join(command)}: ended with exit code {code}; its output is above")


def compared(name: str, suite: Suite, at: Place) -> tuple[list[dict], list[dict]]:
    """-> bounds, records"""
    if not PEERS.exists():
        raise UserError(f"{PEERS}: is not there; make it with `make peers`")
    data, out = data_folder(at.data, suite.data), at.answers(name)
    split = write_splits(data, at.work / suite.data, [suite.split])[suite.split]
    steps = [] if at.steps is None else ["--steps", str(at.steps)]
    for python, module, more in (
        (PEERS, [f"flm_benchmarks.peers.{suite.family}"], []),
        (sys.executable, ["flm_benchmarks.ours", suite.family], steps),
    ):
        answered(python, [*module, "--grid", suite.section, *more], split, out, at)
    return judged(name, suite, SplitLog.read(split), out)


def judged(name: str, suite: Suite, log: SplitLog, out: Path) -> tuple[list[dict], list[dict]]:
    """The answers in `out`; -> bounds, records"""
    bounds, records, variants = [], [], list(variants_of(suite.section))
    peers = list(yaml.safe_load(GRID.read_text(encoding="utf-8"))[suite.section])
    for family, required in suite.required.items():
        told = name if family == suite.family else family
        for found in contests(told, family, measured(family, log, out), variants, peers):
            bounds += bounds_of(found, required)
            records.append(found.record())
            print(as_text(records[-1]))
    return bounds, records


def spent(folder: Path) -> float:
    """Seconds that the units which left their figures in a folder took, whenever they ran."""
    seconds = 0.0
    for file in [*folder.glob("*.json"), *folder.glob("*/*.json")]:
        told = json.loads(file.read_text(encoding="utf-8"))
        units = told["tried"] + told["finals"] if "finals" in told else [told]
        seconds += sum(unit["seconds"] for unit in units)
    return seconds


Run = Callable[[Place], tuple[list[dict], list[dict]]]


def comparison(name: str) -> Run:
    """A suite's run."""
    return lambda at: compared(name, SUITES[name], at)


def ablation(at: Place) -> tuple[list[dict], list[dict]]:
    """One part off at a time, on validation of the headline's split; what doesn't pay is off in
    ranking.yaml."""
    told = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    data = data_folder(at.data, "ml-100k")
    split = write_splits(data, at.work / "ml-100k", ["last"])["last"]
    out = at.answers("ablation")
    runs = Runs(config=CONFIGS / "ablation.yaml", folder=out / "runs", steps=at.steps)
    parts = dict(list(told["ablation"].items())[: 1 if at.quick else None])
    records = ablated(
        runs,
        split.parent.parent,
        SplitLog.read(split),
        parts=parts,
        seeds=SEEDS[:1] if at.quick else SEEDS,
        out=out,
        until=at.until,
    )
    print(ablation_text(records))
    shutil.rmtree(runs.folder, ignore_errors=True)
    return [], records


def both_stages(at: Place) -> tuple[list[dict], list[dict]]:
    """Stage 1 and 2 as bundled against stage 2 alone, with all of training and with a tenth."""
    whole, records = data_folder(at.data, "ml-100k"), []
    last = write_splits(whole, at.work / "ml-100k", ["last"])["last"].parent.parent
    for share in (0.1, 1.0)[: 1 if at.quick else None]:
        name = f"ml-100k-{share:.0%}"
        data = whole if share == 1 else thinned(last, at.work / "data" / name, share)
        split = write_splits(data, at.work / name, ["last"])["last"]
        out = at.answers("stages") / f"{share:.0%}"
        folder = at.answers("stages") / "runs"
        first, second = (
            Runs(config=BUNDLED / f"{stage}.yaml", folder=folder, steps=at.steps)
            for stage in ("pretrain", "finetune")
        )
        told = stages.compared(
            stages.TwoStages(first=first, second=second),
            split.parent.parent,
            SplitLog.read(split),
            out=out,
            quick=at.quick,
            until=at.until,
        )
        records.append({"share": share, **told})
        print(stages.as_text(share, told))
    shutil.rmtree(at.answers("stages") / "runs", ignore_errors=True)
    return [], records


PARTS: dict[str, Run] = {
    **{name: comparison(name) for name in SUITES},
    "ablation": ablation,
    "stages": both_stages,
}


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Run the suites asked for, as far as the time goes."""
    parser = argparse.ArgumentParser(prog="python benchmarks/quality.py", description=__doc__)
    parser.add_argument("--suite", nargs="+", choices=[*PARTS, "ranking"], default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="one setting, seed and round each")
    parser.add_argument("--steps", type=int, help="with --quick: of each of our runs, for a try")
    parser.add_argument("--data", type=Path, default=Path("data"), help="of ml-100k and latest")
    parser.add_argument("--work", type=Path, default=Path("data/quality"), help="for all it makes")
    kept = RESULTS / "answers"
    parser.add_argument("--answers", type=Path, default=kept, help="kept from run to run")
    parser.add_argument("--minutes", type=float, default=30, help="begin nothing after them")
    args = parser.parse_args(argv)
    if args.steps is not None and not args.quick:
        raise UserError(f"--steps: {args.steps}; allowed: with --quick, whose answers aren't kept")
    at = Place(
        data=args.data,
        work=args.work,
        kept=args.answers,
        quick=args.quick,
        until=time.monotonic() + 60 * args.minutes,
        steps=args.steps,
    )
    suites, left = last_parts("quality", "suite"), []
    bounds: list[dict[str, Any]] = []
    for name in dict.fromkeys(HEADLINE if name == "ranking" else name for name in args.suite):
        try:
            found, records = PARTS[name](at)
        except OutOfTimeError:
            left.append(name)
            continue
        bounds += found
        seconds = spent(at.answers(name))
        suites[name] = {"suite": name, "seconds": seconds, "bounds": found, "records": records}
        if not args.quick:
            kept = [suites[part] for part in PARTS if part in suites]
            write_results("quality", kept, command="python benchmarks/quality.py")
    print(f"\n{as_table(bounds)}" if bounds else "")
    if left:
        print(f"left: {', '.join(left)}; run the same again to go on")
        return OUT_OF_TIME
    return int(args.steps is None and not all(bound["passed"] for bound in bounds))


if __name__ == "__main__":
    raise SystemExit(main())
