"""Does training lose nothing to us, and what do our optimisations gain? Writes
benchmarks/results/scale.json; 1 when a bound is missed.

Run it with `python benchmarks/scale.py`; `--only` runs some of the parts and keeps the others'
figures of the last time.
"""

import argparse
import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from flm_benchmarks import fused_tables, text_tower, utilisation
from flm_benchmarks.harness import RESULTS, Measured, run_parts, torchrun
from flm_benchmarks.plan_lines import read_plans
from flm_benchmarks.sharding.growth import growths
from flm_benchmarks.sharding.report import merged, write_page

from flm_torchrec.errors import app
from flm_torchrec.evaluation.bounds import checked
from flm_torchrec.planning.fit import median_error, rank_correlation

GROWN = [10**power for power in range(4, 8)]  # rows of each of 4 tables
BATCHES = [2**power for power in range(8, 15, 2)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the parts measure with, and whether only that they run."""

    data: Path  # MovieLens-100K
    repeats: int
    quick: bool = False


def texts_once(asked: Asked) -> Measured:
    """Each text of a batch once."""
    found = text_tower.once_a_batch(asked.data, repeats=asked.repeats)
    share = found["seconds_ratio"] / found["texts_ratio"]
    name = "each text once, seconds saved over texts saved"
    return [checked(name, share, ">=", 0.9), checked(name, share, "<=", 1.1)], [found]


def texts_by_length(asked: Asked) -> Measured:
    """Texts of alike lengths together."""
    found = text_tower.by_length(asked.data, texts=1600, repeats=asked.repeats)
    return [checked("length buckets against padding", found["ratio"], ">=", 1.3)], [found]


def frozen_text(asked: Asked) -> Measured:
    """A frozen encoder's kept vectors."""
    found = text_tower.frozen_against_full(asked.data, steps=asked.repeats)
    return [checked("frozen text against full, samples/s", found["ratio"], ">=", 50)], [found]


def text_memory(asked: Asked) -> Measured:
    """Texts in micro-batches, run again in backward, where all encoder layers train."""
    rows, size = (128, 16) if not asked.quick else (8, 4)
    found = text_tower.in_micro_batches(asked.data, rows=rows, size=size, steps=asked.repeats)
    name = "texts in micro-batches, memory of a step against all at once"
    return [checked(name, found["memory_ratio"], "<=", 0.6)], [found]


def text_precision(asked: Asked) -> Measured:
    """The encoder in bf16, and compiled."""
    return [], [text_tower.in_bf16(repeats=asked.repeats, compiled=not asked.quick)]


def text_utilisation(asked: Asked) -> Measured:
    """The text tower's arithmetic; bound where the device's peak is known."""
    found = [
        utilisation.measure(repeats=asked.repeats, dtype=dtype)
        for dtype in (torch.bfloat16, torch.float32)
    ]
    share = found[0]["utilisation"]
    name = "model-FLOP utilisation of the text tower in bf16"
    return [] if share is None else [checked(name, share, ">=", 0.45)], found


def on_ranks(ranks: int, module: str, *options: str) -> None:
    """Run a module on processes of one machine, as torchrun does."""
    subprocess.run([*torchrun(ranks), module, *options], check=True)


def step(asked: Asked) -> Measured:
    """A training step against one that is written by hand, on 1 and on 2 ranks."""
    bounds, records = [], []
    for ranks in (1, 2):
        with TemporaryDirectory() as folder:
            out = Path(folder) / "ratio.json"
            pairs = ["--pairs", str(2 * asked.repeats)]
            on_ranks(ranks, "flm_benchmarks.handwritten", "--out", str(out), *pairs)
            records.append(json.loads(out.read_text(encoding="utf-8")))
        name = f"step against one by hand, {ranks} ranks, samples/s"
        bounds.append(checked(name, records[-1]["ratio"], ">=", 0.97))
    return bounds, records


def tables(asked: Asked) -> Measured:
    """Fused tables of a million rows."""
    found = fused_tables.measure(rows=1_000_000, repeats=asked.repeats)
    bounds = []
    for kernel in ("rowwise_adagrad", "sgd"):  # training's default, and what the other does
        name = f"{kernel} in fused tables against SGD in nn.EmbeddingBag"
        bounds.append(checked(name, found["fused"][kernel]["ratio"], ">=", 2))
    return bounds, [found]


def growth(asked: Asked) -> Measured:
    """Step time over rows and batch, on 1 and on 2 ranks; its page lies beside the results."""
    rows, batches = (GROWN, BATCHES) if not asked.quick else (GROWN[:1], BATCHES[:3])
    swept = {"--rows": rows, "--batch-size": batches, "--ids": ("uniform", "zipf:1.1")}
    options = [
        *("--preset", "equal", "--sharding", "table_wise", "--steps", str(max(30, asked.repeats))),
        *(text for name, values in swept.items() for text in (name, ",".join(map(str, values)))),
    ]
    with TemporaryDirectory() as folder:
        files = [Path(folder) / f"{ranks}.jsonl" for ranks in (1, 2)]
        for ranks, file in enumerate(files, 1):
            on_ranks(ranks, "flm_benchmarks.sharding.run", "--out", str(file), *options)
        lines = merged(files)
        if not asked.quick:
            write_page(lines, RESULTS / "growth.html")
    return [], [asdict(found) for found in growths(lines)]


def plans(asked: Asked) -> Measured:
    """The calibrated planner's plans against the best of many, and its predictions; goes on with
    what lies beside the results."""
    lines = []
    with TemporaryDirectory() as folder:
        for ranks in (1, 2):
            out = (RESULTS if not asked.quick else Path(folder)) / f"plans.{ranks}.jsonl"
            few = (
                ["--mixes", "criteo-small", "--most", "3", "--repeats", "2", "--short"]
                if asked.quick
                else []
            )
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


PARTS: dict[str, Callable[[Asked], Measured]] = {
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
    repeats = 2 if args.quick else args.repeats
    asked = Asked(data=args.data, repeats=repeats, quick=args.quick)
    return run_parts(
        "scale",
        PARTS,
        asked,
        args.only,
        command="python benchmarks/scale.py",
        is_try=args.quick,
    )


if __name__ == "__main__":
    raise SystemExit(main())
