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
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flm_benchmarks import fused_tables, text_tower
from flm_benchmarks.harness import last_parts, write_results

from flm_torchrec.errors import app
from flm_torchrec.evaluation.bounds import as_table, checked

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


def step(data: Path, repeats: int) -> Measured:
    """A training step against one that is written by hand, on 1 and on 2 ranks."""
    del data
    bounds, records = [], []
    for ranks in (1, 2):
        with TemporaryDirectory() as folder:
            out = Path(folder) / "ratio.json"
            command = [str(Path(sys.executable).parent / "torchrun"), "--nproc_per_node"]
            command += [str(ranks), "-m", "flm_benchmarks.handwritten", "--out", str(out)]
            subprocess.run([*command, "--pairs", str(2 * repeats)], check=True)
            records.append(json.loads(out.read_text(encoding="utf-8")))
        name = f"step against one by hand, {ranks} ranks, samples/s"
        bounds.append(checked(name, records[-1]["ratio"], ">=", 0.97))
    return bounds, records


def tables(data: Path, repeats: int) -> Measured:
    """Fused tables of a million rows."""
    del data
    found = fused_tables.measure(rows=1_000_000, repeats=repeats)
    return [checked("fused tables against nn.EmbeddingBag", found["ratio"], ">=", 2)], [found]


PARTS: dict[str, Callable[[Path, int], Measured]] = {
    "step": step,
    "tables": tables,
    "texts_once": texts_once,
    "texts_by_length": texts_by_length,
    "frozen_text": frozen_text,
}


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for and write what all of them gave last."""
    parser = argparse.ArgumentParser(prog="python benchmarks/scale.py", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/ml-100k"))
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="two repeats, and no results written")
    args = parser.parse_args(argv)
    repeats = 2 if args.quick else args.repeats
    parts = last_parts("scale", "part")
    for name in args.only:
        begin = time.perf_counter()
        bounds, records = PARTS[name](args.data, repeats)
        seconds = time.perf_counter() - begin
        parts[name] = {"part": name, "seconds": seconds, "bounds": bounds, "records": records}
        if not args.quick:
            kept = [parts[part] for part in PARTS if part in parts]
            write_results("scale", kept, command="python benchmarks/scale.py")
    bounds = [bound for name in PARTS if name in parts for bound in parts[name]["bounds"]]
    print(as_table(bounds))
    return int(not all(bound["passed"] for bound in bounds))


if __name__ == "__main__":
    raise SystemExit(main())
