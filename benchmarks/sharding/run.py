"""Time a training step of tables under sharding types, kernels, dtypes and pipelines.

Start it with `torchx run -s local_cwd flm.bench_sharding -j 1x2 -- --preset equal`, with torchrun,
or alone. A repeat is one step after a barrier; it took what its slowest rank took.
"""

import argparse
import gc
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from flm_benchmarks.sharding.arguments import PRESET, check_batches, parser, points_of
from flm_benchmarks.sharding.ids import owners, read_log
from flm_benchmarks.sharding.markdown import as_markdown
from flm_benchmarks.sharding.measure import LR, Work
from flm_benchmarks.sharding.model import load_model, tables_of
from flm_benchmarks.sharding.report import write_page
from flm_benchmarks.sharding.sweep import sweep
from torch.distributed.elastic.multiprocessing.errors import record

from flm_torchrec.errors import UserError, app
from flm_torchrec.files import atomic_file
from flm_torchrec.planning.calibration import fitting_calibration
from flm_torchrec.planning.machine import available_memory
from flm_torchrec.planning.request import cluster_here
from flm_torchrec.planning.tables import Table, preset, read_tables, scaled
from flm_torchrec.training.optimizers import table_optimizer
from flm_torchrec.training.runtime import Runtime, start

_GIB = 2**30
# Of the free memory: data-parallel tables are copied to each rank, with a gradient beside.
_TABLES_SHARE = 0.125
INTERRUPTED = 130  # as shells tell it


def work_of(args: argparse.Namespace, runtime: Runtime) -> Work:
    """Tables, log and optimizer that the command line asks for."""
    build = None
    if args.model is not None:
        name, build = args.model, load_model(args.model)
        tables = tables_of(build())
    elif args.tables is not None:
        # By its name, wherever it lies: the tables themselves are in each line.
        name, tables = args.tables.name, read_tables(args.tables)
    else:
        name = args.preset or PRESET
        tables = scaled(preset(name), most_bytes=_most_bytes(args.table_gib, runtime))
    owners(tables)
    table_optimizer(args.optimizer, LR, runtime.device)  # raises where the device lacks it
    return Work(
        name=name,
        tables=tables,
        build=build,
        log=None if args.log is None else read_log(args.log, tables),
        log_name=None if args.log is None else args.log.name,
        optimizer=args.optimizer,
        calibration=None
        if args.calibration is None
        else fitting_calibration(args.calibration, cluster_here(runtime), option="--calibration"),
        seed=args.seed,
        steps=args.steps,
        warmup=args.warmup,
    )


def _most_bytes(gib: float | None, runtime: Runtime) -> int:
    """What a preset's tables may take: the same on every rank, and at the next start."""
    if gib is not None:
        if not 0 < gib < math.inf:
            raise UserError(f"--table-gib: {gib}; allowed: a number above 0")
        return int(gib * _GIB)
    free = [0.0]
    if runtime.device.type == "cuda":
        free = [torch.cuda.mem_get_info(runtime.device)[0] / _GIB]
    else:
        free = [available_memory()]
    dist.broadcast_object_list(free, 0)
    share = max(free[0] * _TABLES_SHARE, 2**-6)
    return int(2 ** math.floor(math.log2(share)) * _GIB)


def own_dtype(tables: Sequence[Table]) -> str:
    """The dtype that all tables share, else "own"."""
    kinds = {table.dtype for table in tables}
    return kinds.pop() if len(kinds) == 1 else "own"


@record
@app
def main(argv: Sequence[str] | None = None) -> int:
    """Measure every point; rank 0 writes the lines and a table; 1 when none has figures."""
    args = parser(__doc__).parse_args(argv)
    logging.getLogger().addFilter(_concerns_users)
    with start() as runtime:
        work = work_of(args, runtime)
        points = points_of(args, own_dtype(work.tables))
        check_batches(points, runtime.world_size)
        try:
            lines = sweep(
                runtime,
                work,
                points,
                out=args.out,
                resume=args.resume,
                copy_megabytes=args.copy_mb,
            )
        except KeyboardInterrupt:
            kept = "" if args.out is None else f"; --resume goes on with {args.out}"
            print(f"flm: interrupted{kept}", file=sys.stderr)
            return INTERRUPTED
        gc.collect()  # the tables of the last point
        has_figures = [any(line["status"] == "measured" for line in lines)]
        dist.broadcast_object_list(has_figures, 0)
        if runtime.rank == 0:
            table = as_markdown(lines)
            print(table)
            _write(args.markdown, table)
            if args.html is not None:
                write_page(lines, args.html)
    return int(not has_figures[0])


def _concerns_users(entry: logging.LogRecord) -> bool:
    """TorchRec's planner says this of each data-parallel table."""
    return "Sharding spec not found" not in entry.getMessage()


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        with atomic_file(path) as file:
            file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
