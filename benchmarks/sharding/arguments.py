"""The command line of the sharding benchmark, every list of it separated by commas."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from flm_benchmarks.sharding.ids import normal_ids
from flm_benchmarks.sharding.point import (
    CACHING,
    DTYPES,
    KERNELS,
    PIPELINES,
    SHARDINGS,
    Point,
    product,
)

from flm_torchrec.errors import UserError
from flm_torchrec.planning.tables import PRESETS

PRESET = "criteo-small"
OPTIMIZERS = ("rowwise_adagrad", "adagrad", "sgd", "adam", "partial_rowwise_adam", "lamb")
T = TypeVar("T")


def parser(about: str | None) -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser(prog="flm bench-sharding", description=about)
    tables = made.add_mutually_exclusive_group()
    tables.add_argument("--preset", help=f"{', '.join(PRESETS)} (default {PRESET})")
    tables.add_argument("--tables", type=Path, help="a YAML file of tables")
    tables.add_argument("--model", help="module:function, which returns batch -> (losses, output)")
    made.add_argument("--sharding", default="all", help=f"all, or of {','.join(SHARDINGS)}")
    made.add_argument("--kernel", default="auto", help=f"auto, all, or of {','.join(KERNELS)}")
    made.add_argument("--dtype", default="own", help=f"own, all, or of {','.join(DTYPES)}")
    made.add_argument("--pipeline", default="sparse_dist", help=f"all, or of {','.join(PIPELINES)}")
    made.add_argument("--batch-size", default="1024", help="samples of a step, over all ranks")
    made.add_argument("--rows", default="own", help="own, or numbers: rows of every table")
    made.add_argument("--pooling", default="own", help="own, or numbers: ids a bag, mean")
    made.add_argument("--ids", default="uniform", help="of uniform, zipf, zipf:EXPONENT, log")
    made.add_argument("--log", type=Path, help="a .parquet or .csv file, a column a feature")
    made.add_argument("--calibration", type=Path, help="of flm plan calibrate: plans, predicts")
    made.add_argument("--ablation", action="store_true", help="also what each optimisation adds")
    made.add_argument("--optimizer", choices=OPTIMIZERS, default=OPTIMIZERS[0])
    made.add_argument("--steps", type=positive, default=30, help="timed repeats of a point")
    made.add_argument("--warmup", type=positive, default=5, help="steps before them")
    made.add_argument("--seed", type=_seed, default=0, help="of ids and rows")
    made.add_argument("--table-gib", type=float, help="cut a preset to that; by default it fits")
    made.add_argument("--copy-mb", type=positive, default=256, help="tensor that is copied")
    made.add_argument("--out", type=Path, help="the JSON lines; without it they are printed")
    made.add_argument("--resume", action="store_true", help="go on with --out")
    made.add_argument("--markdown", type=Path, help="write a table of the lines there")
    made.add_argument("--html", type=Path, help="write a page of the lines there")
    return made


def points_of(args: argparse.Namespace, own_dtype: str) -> list[Point]:
    """The product of the lists; UserError naming an entry that is not allowed."""
    ids = [normal_ids(text) for text in _entries("--ids", args.ids)]
    if ("log" in ids) != (args.log is not None):
        raise UserError("--ids log and --log FILE go together; one of them is missing")
    if args.resume and args.out is None:
        raise UserError("--resume: there is no --out FILE to go on with")
    dtypes = _named("--dtype", args.dtype, (*DTYPES, "own"), everything=DTYPES)
    return product(
        sharding=_named("--sharding", args.sharding, SHARDINGS),
        kernel=_kernels(args.kernel),
        dtype=[own_dtype if name == "own" else name for name in dtypes],
        pipeline=_named("--pipeline", args.pipeline, PIPELINES),
        batch_size=_each("--batch-size", args.batch_size, positive),
        rows=_each("--rows", args.rows, _rows),
        pooling=_each("--pooling", args.pooling, _pooling),
        ids=ids,
        ablation=args.ablation,
    )


def check_batches(points: Sequence[Point], world_size: int) -> None:
    """UserError where a batch can't be shared evenly: row-wise tables need even shares."""
    for size in dict.fromkeys(point.batch_size for point in points):
        if size < world_size or size % world_size:
            raise UserError(
                f"--batch-size: {size} can't be shared evenly by {world_size} ranks; "
                f"allowed: a multiple of {world_size}"
            )


def positive(text: str) -> int:
    """A whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}; allowed: 1 or more")
    return value


def _seed(text: str) -> int:
    if not 0 <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text}; allowed: 0 to {2**31 - 1}")
    return int(text)


def _rows(text: str) -> int | None:
    return None if text == "own" else positive(text)


def _pooling(text: str) -> float | None:
    if text == "own":
        return None
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError(text)
    return value


def _entries(option: str, text: str) -> list[str]:
    entries = [entry.strip() for entry in text.split(",")]
    if not all(entries):
        raise UserError(f"{option}: '{text}' has an empty entry; allowed: a,b,c")
    return entries


def _named(
    option: str, text: str, allowed: Sequence[str], *, everything: Sequence[str] = ()
) -> list[str]:
    if text == "all":
        return list(everything or allowed)
    entries = _entries(option, text)
    for entry in entries:
        if entry not in allowed:
            raise UserError(f"{option}: '{entry}' is not one of all, {', '.join(allowed)}")
    return entries


def _kernels(text: str) -> list[str]:
    """Of them the caching one may have a share of the rows behind it."""
    if text == "all":
        return list(KERNELS)
    entries = _entries("--kernel", text)
    shares = [entry.partition(":")[2] for entry in entries if entry.startswith(f"{CACHING}:")]
    for share in shares:
        if not share.replace(".", "", 1).isdecimal() or not 0 < float(share) <= 1:
            raise UserError(f"--kernel: '{CACHING}:{share}'; allowed: a share in (0, 1]")
    plain = ",".join(entry for entry in entries if not entry.startswith(f"{CACHING}:"))
    if plain:
        _named("--kernel", plain, (*KERNELS, "auto"))
    return entries


_ALLOWED: Mapping[Callable[[str], Any], str] = {
    positive: "whole numbers of 1 or more",
    _rows: "own, or whole numbers of 1 or more",
    _pooling: "own, or numbers above 0",
}


def _each(option: str, text: str, made_of: Callable[[str], T]) -> list[T]:
    values = []
    for entry in _entries(option, text):
        try:
            values.append(made_of(entry))
        except (ValueError, argparse.ArgumentTypeError):
            raise UserError(f"{option}: '{entry}'; allowed: {_ALLOWED[made_of]}") from None
    return values
