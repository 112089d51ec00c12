"""What does each way to train the text encoder give, and cost? One table over them all, after the
same number of steps, without the linear path, which reads no texts. Writes
benchmarks/results/text_modes.json; exits with 2 when work is left.

Run it with `python benchmarks/text_modes.py` until it is done: a mode that was measured is not
measured again (its figures lie in benchmarks/results/answers/text_modes: name another folder by
`--answers` to measure all anew), what was cut off goes on where it was, and nothing is begun after
`--minutes`. `--quick` takes a few steps, and writes no results.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import yaml
from flm_apps import train as train_app
from flm_apps.run_folder import run_config
from flm_benchmarks.harness import RESULTS, spread, write_results
from flm_benchmarks.peers.units import OUT_OF_TIME, SEEDS
from flm_benchmarks.runs import Runs
from flm_benchmarks.sharding.memory import peak_bytes
from flm_benchmarks.text_tower import step_seconds

from flm_torchrec.assemble import assemble
from flm_torchrec.errors import UserError, app
from flm_torchrec.evaluation.report import read_log
from flm_torchrec.files import atomic_file
from flm_torchrec.training.runtime import start
from flm_torchrec.views import text_cache

CONFIG = Path(__file__).parent / "configs" / "quality" / "ranking.yaml"
ANEW = "last_n_anew"  # last_n without the states below the layers that train
FAST = {"train.dense.text_lr": 5e-4}  # adapters start at nothing: ten times the encoder's own
MODES: dict[str, dict[str, Any]] = {
    "frozen": {},
    "last_n": {"views.text.mode": "last_n"},
    ANEW: {"views.text.mode": "last_n"},
    "lora": {"views.text.mode": "lora", **FAST},
    "adalora": {"views.text.mode": "adalora", **FAST},
    "adapter": {"views.text.mode": "adapter", **FAST},
    "full": {"views.text.mode": "full"},
}
NDCG = "ndcg@10"
SPEEDS = ("texts_per_s", "steps_per_s", "trainable", "peak_mib")


def setting(mode: str, *, steps: int, rows: int) -> dict[str, Any]:
    """What a mode's run differs in from the configuration."""
    told = {"train.steps": steps, "train.validate_every": steps, "views.linear": None}
    told |= MODES[mode]
    if mode != "frozen":
        every = max(1, steps // 2)
        told |= {"views.text.rows": rows, "views.text.refresh": every}
        told["train.checkpoint_every"] = every
    return told


def unit(mode: str, given: Sequence[str], run: Path, *, timed: int) -> dict[str, Any]:
    """Train one mode in this process, which does nothing else, and time so many steps of it."""
    begin = time.perf_counter()
    if mode == ANEW:
        text_cache.MOST_BELOW = 0
    code = train_app.main(["--config", str(CONFIG), "--run", str(run), "--resume", *given])
    if code:
        raise UserError(f"{mode}: ended with exit code {code}; its output is above")
    with start() as runtime:
        peak = peak_bytes(runtime.device)
        config = run_config(run)
        assembly = assemble(config, runtime)
        assembly.keep_layers_below()
        assembly.refresh_text(keep=True)
        assert assembly.encoder is not None
        trained = [p for p in assembly.encoder.model.parameters() if p.requires_grad]
        seconds = step_seconds(assembly, timed)
        a_step = median(seconds)
        text = config.views.text
    assert text is not None
    (_, ndcg) = read_log(run / "log.jsonl")["validation/ndcg@10"][-1]
    return {
        NDCG: ndcg,
        "texts_per_s": text.rows / a_step,
        "steps_per_s": 1 / a_step,
        "step_seconds_quartiles": spread(seconds),
        "trainable": sum(parameter.numel() for parameter in trained),
        "peak_mib": peak / 2**20,
        "seconds": time.perf_counter() - begin,
    }


def measured(
    same: Mapping[str, Any], runs: Runs, file: Path, *, until: float
) -> dict[str, Any] | None:
    """The figures of what `same` names, of a process of its own unless they are in the file; None
    after `until`."""
    if file.exists():
        found = json.loads(file.read_text(encoding="utf-8"))
        if found | dict(same) == found:
            return found
    if time.monotonic() > until:
        return None
    out = file.with_suffix(".new.json")
    run = runs.folder / hashlib.sha256(json.dumps(same).encode()).hexdigest()[:12]
    given = runs.overrides(Path(same["data"]), same["setting"], same["seed"])
    command = [sys.executable, "-m", "flm_benchmarks.text_modes", "--only", same["mode"]]
    command += ["--unit", str(out), "--run", str(run), *given]
    file.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(command, check=True)
    found = {**same, **json.loads(out.read_text(encoding="utf-8"))}
    with atomic_file(file) as temporary:
        temporary.write_text(json.dumps(found), encoding="utf-8")
    out.unlink()
    shutil.rmtree(run)
    return found


def over_seeds(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The record of a mode: mean and spread of the quality, the median of all else."""
    ndcgs = [own[NDCG] for own in found]
    return {
        "mode": found[0]["mode"],
        NDCG: fmean(ndcgs),
        "spread": stdev(ndcgs) if len(ndcgs) > 1 else None,
        **{name: median(own[name] for own in found) for name in SPEEDS},
        "seconds": sum(own["seconds"] for own in found),
        "runs": list(found),
        "bounds": [],
    }


def as_text(records: Sequence[Mapping[str, Any]]) -> str:
    """A line a mode."""
    quality, speeds = f"{'NDCG@10':>8} +- {'':5} of", f"{'texts/s':>8} {'steps/s':>8}"
    lines = [f"{'mode':12} {quality} {speeds} {'trained':>11} {'MiB':>6}"]
    for own in records:
        texts, steps, trained, peak = (own[name] for name in SPEEDS)
        spread = " " * 5 if own["spread"] is None else f"{own['spread']:.4f}"[1:]
        quality = f"{own[NDCG]:8.4f} +- {spread} {len(own['runs']):2}"
        lines.append(
            f"{own['mode']:12} {quality} {texts:8.1f} {steps:8.2f} {trained:11,} {peak:6.0f}"
        )
    return "\n".join(lines)


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Measure the modes asked for, as far as the time goes."""
    parser = argparse.ArgumentParser(prog="python benchmarks/text_modes.py", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/ml-100k"))
    parser.add_argument("--only", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--work", type=Path, default=Path("data/text_modes"), help="for the runs")
    kept = RESULTS / "answers" / "text_modes"
    parser.add_argument("--answers", type=Path, default=kept, help="kept from run to run")
    parser.add_argument("--minutes", type=float, default=30, help="begin nothing after them")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rows", type=int, default=32, help="texts a step")
    parser.add_argument("--quick", action="store_true", help="four steps, and no results written")
    parser.add_argument("--unit", type=Path, help=argparse.SUPPRESS)  # a process that measures one
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("given", nargs="*", metavar="key=value", help="of the configuration")
    args = parser.parse_intermixed_args(argv)
    if args.unit is not None:
        found = unit(args.only[0], args.given, args.run, timed=min(20, args.steps))
        args.unit.write_text(json.dumps(found), encoding="utf-8")
        return 0
    until = time.monotonic() + 60 * args.minutes
    steps, rows, seeds = (4, 4, SEEDS[:1]) if args.quick else (args.steps, args.rows, SEEDS)
    if args.quick:
        args.answers = args.work / "quick"
    runs = Runs(config=CONFIG, folder=args.work / "runs")
    more = {key: yaml.safe_load(value) for key, _, value in (g.partition("=") for g in args.given)}
    by_mode: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
    left = []
    for seed, mode in product(seeds, MODES):
        told = setting(mode, steps=steps, rows=rows) | more
        same = {"mode": mode, "version": runs.version, "data": str(args.data), "setting": told}
        # Of those that are not asked for, what is there.
        last = until if mode in args.only else float("-inf")
        file = args.answers / f"{mode}.{seed}.json"
        own = measured({**same, "seed": seed}, runs, file, until=last)
        if own is not None:
            by_mode[mode].append(own)
        elif mode in args.only:
            left.append(f"{mode} of seed {seed}")
    records = [over_seeds(own) for own in by_mode.values() if own]
    print(as_text(records))
    if not args.quick:
        write_results("text_modes", records, command="python benchmarks/text_modes.py")
    if left:
        print(f"left: {', '.join(left)}; run the same again to go on")
        return OUT_OF_TIME
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
