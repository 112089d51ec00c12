"""Does training lose nothing to us, and what do our optimisations gain? Writes
benchmarks/results/scale.json; 1 when a bound is missed.

Run it with `python benchmarks/scale.py`; `--only` runs some of the parts and keeps the others'
figures of the last time.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from flm_benchmarks import fused_tables, text_tower, utilisation
from flm_benchmarks.harness import RESULTS, last_parts, write_results
from flm_benchmarks.plan_lines import read_plans
from flm_benchmarks.sharding.growth import growths
from flm_benchmarks.sharding.report import merged, write_page

from flm_torchrec.errors import app
from flm_torchrec.evaluation.bounds import as_table, checked
from flm_torchrec.planning.fit import median_error, rank_correlation

QUICK = 2  # repeats
GROWN = [10**power for power in range(4, 8)]  # rows of each of 4 tables
BATCHES = [2**power for power in range(8, 15, 2)]
Measured = tuple[list[dict[str, Any]], list[dict[str, Any]]]  # bounds, records


def texts_once(data: Path, repeats: int) -> Measured:
    """Each text of a batch once."""
    found = text_tower.once_a_batch(data, repeats=repeats)
    share = found["seconds_ratio"] / found["texts_ratio"]
    name = "each text once, seconds saved over texts saved"
    return [checked(name, share, ">=", 0.9), checked(name, share, "<=", 1.1)], [found]


def texts_by_length(data: Path, repeats: int) -> Measured:
    """Texts of alike lengths together."""
    found = text_tower.by_length(data, texts=1600, repeats=repeats)
    return [checked("length buckets against padding", found["ratio"], ">=", 1.3)], [found]


def frozen_text(data: Path, repeats: int) -> Measured:
    """A frozen encoder's kept vectors."""
    found = text_tower.frozen_against_full(data, steps=repeats)
    return [checked("frozen text against full, samples/s", found["ratio"], ">=", 50)], [found]


def text_memory(data: Path, repeats: int) -> Measured:
    """Texts in micro-batches, run again in backward, where all encoder layers train."""
    rows, size = (128, 16) if repeats > QUICK else (8, 4)
    found = text_tower.in_micro_batches(data, rows=rows, size=size, steps=repeats)
    name = "texts in micro-batches, memory of a step against all at once"
    return [checked(name, found["memory_ratio"], "<=", 0.6)], [found]


def text_precision(data: Path, repeats: int) -> Measured:
    """The encoder in bf16, and compiled."""
    del data
    return [], [text_tower.in_bf16(repeats=repeats, compiled=repeats > QUICK)]


def text_utilisation(data: Path, repeats: int) -> Measured:
    """The text tower's arithmetic; bound where the device's peak is known."""
    del data
    found = [
        utilisation.measure(repeats=repeats, dtype=dtype)
        for dtype in (torch.bfloat16, torch.float32)
    ]
    share = found[0]["utilisation"]
    name = "model-FLOP utilisation of the text tower in bf16"
    return [] if share is None else [checked(name, share, ">=", 0.45)], found


def on_ranks(ranks: int, module: str, *options: str) -> None:
    """Run a module on processes of one machine, as torchrun does."""
    command = [str(Path(sys.executable).parent / "torchrun"), "--nproc_per_node", str(ranks)]
    subprocess.run([*command, "-m", module, *options], check=True)


def step(data: Path, repeats: int) -> Measured:
    """A training step against one that is written by hand, on 1 and on 2 ranks."""
    del data
    bounds, records = [], []
    for ranks in (1, 2):
        with TemporaryDirectory() as folder:
            out = Path(folder) / "ratio.json"
            pairs = ["--pairs", str(2 * repeats)]
            on_ranks(ranks, "flm_benchmarks.handwritten", "--out", str(out), *pairs)
            records.append(json.loads(out.read_text(encoding="utf-8")))
        name = f"step against one by hand, {ranks} ranks, samples/s"
        bounds.append(checked(name, records[-1]["ratio"], ">=", 0.97))
    return bounds, records


def tables(data: Path, repeats: int) -> Measured:
    """Fused tables of a million rows."""
    del data
    found = fused_tables.measure(rows=1_000_000, repeats=repeats)
    return [checked("fused tables against nn.EmbeddingBag", found["ratio"], ">=", 2)], [found]


def growth(data: Path, repeats: int) -> Measured:
    """Step time over rows and batch, on 1 and on 2 ranks; its page lies beside the results."""
    del data
    rows, batches = (GROWN, BATCHES) if repeats > QUICK else (GROWN[:2], BATCHES[:3])
    swept = {"--rows": rows, "--batch-size": batches, "--ids": ("uniform", "zipf:1.1")}
    options = [
        *("--preset", "equal", "--sharding", "table_wise", "--steps", str(max(30, repeats))),
        *(text for name, values in swept.items() for text in (name, ",".join(map(str, values)))),
    ]
    with TemporaryDirectory() as folder:
        files = [Path(folder) / f"{ranks}.jsonl" for ranks in (1, 2)]
        for ranks, file in enumerate(files, 1):
            on_ranks(ranks, "flm_benchmarks.sharding.run", "--out", str(file), *options)
        lines = merged(files)
        if repeats > QUICK:
            write_page(lines, RESULTS / "growth.html")
    return [], [asdict(found) for found in growths(lines)]


def plans(data: Path, repeats: int) -> Measured:
    """The calibrated planner's plans against the best of many, and its predictions; goes on with
    what lies beside the results."""
    del data
    lines = []
    with TemporaryDirectory() as folder:
        for ranks in (1, 2):
            out = (RESULTS if repeats > QUICK else Path(folder)) / f"plans.{ranks}.jsonl"
            few = ["--most", "3", "--repeats", "2", "--short"] if repeats <= QUICK else []
            on_ranks(ranks, "flm_benchmarks.plans", "--out", str(out), *few)
            lines += read_plans(out)
    measured = [line for line in lines if "plan" in line]
    mixes = [
        mix | foretold([line for line in measured if _case(line) == _case(mix)])
        for mix in lines
        if "ratio" in mix
    ]
    bounds = []
    for mix in mixes:
        name = f"planned over the best, {mix['mix']}, {mix['ranks']} ranks"
        bounds.append(checked(name, mix["ratio"], "<=", 1.1))
    every = foretold(measured)
    order = every["rank_correlation"]
    bounds.append(checked("predicted step, median relative error", every["error"], "<=", 0.25))
    bounds.append(checked("predicted step, rank correlation", order, ">=", 0.9))
    return bounds, [*mixes, every]


def foretold(plans: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How well step times are predicted, by the calibration and by TorchRec's constants."""
    measured, found = [plan["ms"] for plan in plans], {}
    for prefix, key in (("", "predicted_ms"), ("torchrec_", "torchrec_ms")):
        predicted = [plan[key] for plan in plans]
        found[f"{prefix}error"] = median_error(predicted, measured)
        found[f"{prefix}rank_correlation"] = rank_correlation(predicted, measured)
    return found


def _case(line: dict[str, Any]) -> tuple[str, int]:
    return line["mix"], line["ranks"]


PARTS: dict[str, Callable[[Path, int], Measured]] = {
    "step": step,
    "tables": tables,
    "texts_once": texts_once,
    "texts_by_length": texts_by_length,
    "frozen_text": frozen_text,
    "text_memory": text_memory,
    "text_precision": text_precision,
    "text_utilisation": text_utilisation,
    "growth": growth,
    "plans": plans,
}


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for and write what all of them gave last."""
    parser = argparse.ArgumentParser(prog="python benchmarks/scale.py", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/ml-100k"))
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument(
        "--quick", action="store_true", help="two repeats, for a try: no results, no exit code"
    )
    args = parser.parse_args(argv)
    repeats = QUICK if args.quick else args.repeats
    parts = last_parts("scale", "part")
    for name in args.only:
        begin = time.perf_counter()
        bounds, records = PARTS[name](args.data, repeats)
        seconds = time.perf_counter() - begin
        parts[name] = {"part": name, "seconds": seconds, "bounds": bounds, "records": records}
        if not args.quick:
            kept = [parts[part] for part in PARTS if part in parts]
            write_results("scale", kept, command="python benchmarks/scale.py")
    shown = args.only if args.quick else [name for name in PARTS if name in parts]
    bounds = [bound for name in shown for bound in parts[name]["bounds"]]
    print(as_table(bounds))
    return int(not args.quick and not all(bound["passed"] for bound in bounds))


if __name__ == "__main__":
    raise SystemExit(main())
