"""Every benchmark in miniature: that all of it runs; the figures mean nothing. 1 when one fails.

Run it with `make bench-smoke`; what each printed lies in data/smoke.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from flm_benchmarks.folders import thinned
from flm_benchmarks.peers.splits import write_splits
from flm_benchmarks.quality import SUITES, data_folder

from flm_torchrec.errors import app

# Those that start several ranks have the machine to themselves, the others a core each.
LANES = (("text_modes", "data"), ("quality",))
# Of quality; the other rankings are the same on other data.
SUITES_TRIED = "ranking_last cold_items cold_users clicks ratings ablation stages"
TRIED_MODES = "frozen last_n lora full"
SHARE = 0.05  # of what MovieLens-100K trains on


def commands(work: Path) -> Mapping[str, str]:
    """Each benchmark as it is started, by its name."""
    sharding = "-m flm_benchmarks.sharding.run --preset many-small --table-gib 0.05 --ablation"
    reshard = f"--folder {work}/reshard --out {work}/reshard.jsonl --worlds 1 2"
    quality = f"--data {work}/data --work {work}/quality"
    return {
        "sharding": f"torchrun --nproc_per_node 2 {sharding} --steps 5 --out {work}/lines.jsonl "
        f"--html {work}/sharding.html",
        "compare": f"python -m flm_benchmarks.compare {work}/lines.jsonl {work}/lines.jsonl",
        "reshard_matrix": f"python -m flm_benchmarks.reshard_matrix {reshard} "
        "--types row_wise column_wise",
        "scale": f"python -m flm_benchmarks.scale --quick --data {work}/data/ml-100k",
        "text_modes": f"python -m flm_benchmarks.text_modes --quick --data {work}/data/ml-100k "
        f"--work {work}/text_modes --only {TRIED_MODES}",
        "precision": f"python -m flm_benchmarks.precision --quick --data {work}/data "
        f"--work {work}/precision --only row_wise",
        "data": f"python -m flm_benchmarks.data --quick --work {work}/logs",
        "quality": f"python -m flm_benchmarks.quality --quick --steps 10 {quality} "
        f"--suite {SUITES_TRIED}",
    }


def small_data(data: Path, work: Path) -> None:
    """MovieLens-100K with few interactions, under the names of both data sets of the benchmarks."""
    whole = data_folder(data, "ml-100k")
    last = write_splits(whole, work / "whole", ["last"])["last"].parent.parent
    for name in {suite.data for suite in SUITES.values()}:
        thinned(last, work / "data" / name, SHARE)


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Start them, and tell what each took."""
    parser = argparse.ArgumentParser(prog="python -m flm_benchmarks.smoke", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="of ml-100k")
    parser.add_argument("--work", type=Path, default=Path("data/smoke"), help="made anew")
    parser.add_argument("--only", nargs="+", choices=list(commands(Path())))
    args = parser.parse_args(argv)
    shutil.rmtree(args.work, ignore_errors=True)
    small_data(args.data, args.work)
    began = time.perf_counter()
    chosen = {n: c for n, c in commands(args.work).items() if args.only is None or n in args.only}

    def failures(names: Iterable[str], **env: str) -> int:
        told = [(name, chosen[name]) for name in names if name in chosen]
        return sum(not _runs(name, command, args.work, env) for name, command in told)

    apart = {name for lane in LANES for name in lane}
    failed = failures([name for name in chosen if name not in apart])
    with ThreadPoolExecutor(len(LANES)) as pool:
        failed += sum(pool.map(partial(failures, OMP_NUM_THREADS="1"), LANES))
    print(f"all in {time.perf_counter() - began:.0f} s, {failed} failed")
    return int(bool(failed))


def _runs(name: str, told: str, work: Path, env: Mapping[str, str]) -> bool:
    program, *rest = shlex.split(told)
    command = [str(Path(sys.executable).parent / program), *rest]
    begin, log = time.perf_counter(), work / f"{name}.log"
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.run(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
        ).returncode
    outcome = "runs" if code == 0 else f"FAILED with exit code {code}, see {log}"
    print(f"{name}: {outcome}; {time.perf_counter() - begin:.0f} s", flush=True)
    return code == 0


if __name__ == "__main__":
    raise SystemExit(main())
