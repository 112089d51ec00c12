"""One point of the sharding benchmark measured: the figures and the repeats behind them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import cycle
from typing import Any

import torch
import torch.distributed as dist
from flm_benchmarks.sharding.figures import figures_of, forward_figures
from flm_benchmarks.sharding.ids import Batches, Log, check_ids, make_batches
from flm_benchmarks.sharding.memory import check_fits, peak_bytes, reset_peak
from flm_benchmarks.sharding.model import PooledModel
from flm_benchmarks.sharding.pipelines import make_pipeline
from flm_benchmarks.sharding.point import Point
from flm_benchmarks.sharding.timing import Spread, repeat, repeat_phases
from flm_benchmarks.sharding.traffic import SentBytes, useful_bytes
from torch import Tensor, nn
from torchrec.distributed.comm import get_local_size
from torchrec.inference.modules import quantize_embeddings

from flm_torchrec.errors import UserError
from flm_torchrec.planning.calibration import Calibration
from flm_torchrec.planning.planner import plan_model
from flm_torchrec.planning.price import price
from flm_torchrec.planning.request import Request, cluster_here
from flm_torchrec.planning.tables import WIDTHS, Dtype, Table
from flm_torchrec.training.placing import AUTO, Planner, auto_planner
from flm_torchrec.training.runtime import Runtime, all_gather
from flm_torchrec.training.sharding import describe_plan, shard

LR = 0.05
_COUNTED = 4  # steps whose sent bytes are counted
_TRAINED: Mapping[str, Dtype] = {"fp32": "fp32", "fp16": "fp16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What all points of a sweep have in common."""

    name: str  # of the preset, the file or the model
    tables: Sequence[Table]
    build: Callable[[], nn.Module] | None = None  # a model of the reader's
    log: Log | None = None
    log_name: str | None = None
    optimizer: str = "rowwise_adagrad"
    calibration: Calibration | None = None  # predicts and plans; None: TorchRec's constants
    seed: int = 0
    steps: int = 30
    warmup: int = 5

    def tables_at(self, point: Point) -> tuple[Table, ...]:
        """The tables as the point has them; quantised ones are made of fp32 rows."""
        return tuple(
            replace(
                table,
                rows=point.rows or table.rows,
                pooling=table.pooling if point.pooling is None else point.pooling,
                dtype=_TRAINED.get(point.dtype, table.dtype),
            )
            for table in self.tables
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """What a point gave: figures, the seconds of the slowest rank behind them, and the plan."""

    figures: Mapping[str, Any]
    repeats: Mapping[str, Sequence[float]]
    plan: Sequence[Mapping[str, Any]]


def refused(work: Work, point: Point) -> str | None:
    """Why this work can't be measured at a point that others could be; None where it can."""
    if work.build is not None and point.dtype in _TRAINED:
        own = ", ".join(sorted({table.dtype for table in work.tables}))
        if own != point.dtype:
            return f"the rows of --model's tables are {own}, as it makes them"
    if work.build is not None and point.rows is not None:
        return "--model's tables have the rows that it makes them with"
    uneven = [table for table in work.tables if table.dim % WIDTHS]
    if uneven and point.trains and point.base_kernel != "dense":
        told = ", ".join(f"{table.name} is {table.dim} wide" for table in uneven)
        return f"{told}; FBGEMM's fused tables are multiples of {WIDTHS} wide"
    return None


def measure(runtime: Runtime, work: Work, point: Point, copy: Spread) -> Measured:
    """Every rank must call it; raises where the point can't be measured."""
    if point.batch_size % runtime.world_size:
        raise UserError(
            f"--batch-size: {point.batch_size} can't be shared by {runtime.world_size} ranks; "
            f"allowed: a multiple of {runtime.world_size}"
        )
    tables = work.tables_at(point)
    if runtime.device.type == "cpu":  # a GPU's allocator tells by itself
        check_fits(
            tables,
            point,
            work.optimizer,
            world_size=runtime.world_size,
            local_ranks=get_local_size(),
        )
    batches = make_batches(
        tables,
        point.batch_size,
        point.ids,
        seed=work.seed,
        rank=runtime.rank,
        world_size=runtime.world_size,
        log=work.log,
    )
    check_ids(batches.parts, tables)
    check_even([len(part.labels) for part in batches.parts])
    torch.manual_seed(work.seed)
    reset_peak(runtime.device)
    if not point.trains:
        return _forward_only(runtime, work, point, batches, copy)
    return _trained(runtime, work, point, batches, copy)


def check_even(sizes: Sequence[int]) -> None:
    """UserError where the ranks' batches are not of one size: row-wise tables would hang."""
    everywhere = all_gather(torch.tensor([sizes], dtype=torch.int64))  # (world_size, batches)
    for number, column in enumerate(everywhere.T.tolist()):
        if len(set(column)) > 1:
            raise UserError(
                f"batch {number} has {', '.join(map(str, column))} samples on the ranks; "
                "allowed: the same number on each"
            )


def _model(work: Work, tables: Sequence[Table]) -> nn.Module:
    return PooledModel(tables) if work.build is None else work.build()


def _trained(
    runtime: Runtime, work: Work, point: Point, batches: Batches, copy: Spread
) -> Measured:
    tables, device = work.tables_at(point), runtime.device
    each = point.batch_size // runtime.world_size
    request = _request(runtime, work, point)
    dmp, optimizer = shard(
        _model(work, tables),
        device,
        batch_size=each,
        sparse_optimizer=work.optimizer,
        sparse_lr=LR,
        dense_optimizer=lambda named: torch.optim.AdamW([p for _, p in named], lr=1e-3),
        default=point.sharding,
        kernels=request.kernels,
        planner=_planner(request, point, device),
    )
    plan = describe_plan(dmp)
    predicted = price(request, dmp.plan)
    source = cycle(batches.parts)

    def step() -> None:
        optimizer.zero_grad()
        losses, _ = dmp(next(source).to(device))
        losses.sum().backward()
        optimizer.step()

    for _ in range(2):  # with a static graph, DistributedDataParallel settles in two
        step()
    sent = _gathered([_counted(step) for _ in range(_COUNTED)])
    parts = repeat_phases(dmp, optimizer, source, device, steps=work.steps, warmup=work.warmup)
    pipeline = make_pipeline(point.pipeline, dmp, optimizer, device)
    whole = repeat(lambda: pipeline.progress(source), device, steps=work.steps, warmup=work.warmup)
    figures, repeats = figures_of(
        whole,
        parts,
        samples=point.batch_size,
        lookups=sum(batches.lookups.values()),
        useful=useful_bytes(tables, batches, work.optimizer),
        copy=copy,
        sent=sent,
        peaks=_gathered([float(peak_bytes(device))]),
    )
    return Measured(figures | {"predicted": asdict(predicted)}, repeats, plan)


def _request(runtime: Runtime, work: Work, point: Point) -> Request:
    """What a planner is asked: as training asks it where the point says auto."""
    tables = work.tables_at(point)
    return Request(
        tables=tables,
        cluster=cluster_here(runtime),
        batch_size=point.batch_size // runtime.world_size,
        optimizer=work.optimizer,
        types=AUTO if point.sharding == "auto" else (point.sharding,),
        kernels={table.name: point.base_kernel for table in tables},
        calibration=work.calibration,
    )


def _planner(request: Request, point: Point, device: torch.device) -> Planner | None:
    """What plans otherwise than TorchRec by its own constants; None where nothing does."""
    if point.cached_share is not None:
        return auto_planner(
            device,
            batch_size=request.batch_size,
            constraints={},
            default=point.sharding,
            kernels=request.kernels,
            communication=request.communication,
            cached_share=point.cached_share,
        )
    if request.calibration is None:
        return None

    return partial(plan_model, request)


def _counted(step: Callable[[], None]) -> float:
    with SentBytes() as sent:
        step()
    return sent.total


def _gathered(values: Sequence[float]) -> Tensor:
    """-> (world_size, values)."""
    return all_gather(torch.tensor([values], dtype=torch.float64))


def _forward_only(
    runtime: Runtime, work: Work, point: Point, batches: Batches, copy: Spread
) -> Measured:
    tables, device = work.tables_at(point), runtime.device
    model = _model(work, tables).to_empty(device=device)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.1, 0.1)
    quantised = quantize_embeddings(model, dtype=torch.qint8, inplace=True).eval()
    source = cycle(batches.parts)

    @torch.no_grad()
    def step() -> None:
        quantised(next(source).to(device))

    seconds = repeat(step, device, steps=work.steps, warmup=work.warmup)
    figures, repeats = forward_figures(
        seconds,
        samples=point.batch_size,
        lookups=sum(batches.lookups.values()),
        useful=useful_bytes(tables, batches, None),
        copy=copy,
        peaks=_gathered([float(peak_bytes(device))]),
    )
    plan = [
        {
            "table": table.name,
            "sharding_type": point.sharding,
            "kernel": point.kernel,
            "ranks": list(range(dist.get_world_size())),
            "rows": table.rows,
            "dim": table.dim,
        }
        for table in tables
    ]
    return Measured(figures, repeats, plan)
