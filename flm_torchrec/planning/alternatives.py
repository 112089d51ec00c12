"""Other plans than the best one: all tables in one way, and what would make a plan fit.

Example:
    for name, plan in by_family(request).items():
        print(name, plan.step_ms if isinstance(plan, Planned) else plan.reason)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from torchrec.distributed.planner.constants import MIN_CW_DIM

from flm_torchrec.planning.plan import NoPlan, Planned, make_plan
from flm_torchrec.planning.request import Request
from flm_torchrec.planning.tables import Table
from flm_torchrec.training.optimizers import FUSED_ONLY
from flm_torchrec.training.placing import DATA_PARALLEL, SHARDING_TYPES

_ALMOST = 0.9  # of all memory; ranks can't be filled to the last byte
_FEWEST_ROWS = 1024  # that hashing is tried with, as a divisor
_MOST_RANKS = 8  # times as many as asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A change that was planned with."""

    kind: str
    change: str
    step_ms: float | None  # None: still nothing fits


def by_family(request: Request) -> dict[str, Planned | NoPlan]:
    """The best plan with all tables sharded in one way, for each way."""
    plans = {}
    for kind in SHARDING_TYPES:
        if kind == DATA_PARALLEL and request.optimizer in FUSED_ONLY:
            continue
        if not all(request.allows(table, kind) for table in request.tables):
            continue
        plans[kind] = make_plan(replace(request, types=(kind,), constraints={}, kernels={}))
    return plans


def remedies(failed: NoPlan) -> list[Remedy]:
    """Changes to the tables that fit no rank, or to the largest ones, each tried by planning."""
    request = failed.request
    culprits = failed.unfit or _largest(failed)
    tried = [_try(kind, change, other) for kind, change, other in _changes(request, culprits)]
    fewer = _halved(request, culprits)
    more = _more_ranks(request)
    return [*tried, fewer, more]


def even(planned: Planned) -> list[Remedy]:
    """The busiest table of the busiest rank sharded in other ways, each tried by planning."""
    request, name = planned.request, planned.bottleneck.table
    own = next(placed for placed in planned.placements if placed.table == name)
    return [
        _try("balance", f"{kind} for {name}", replace(request, constraints=constraints))
        for kind in ("row_wise", "column_wise")
        if kind != own.sharding_type and kind in request.types and _cuts(request, kind, (name,))
        for constraints in [{**request.constraints, name: kind}]
    ]


def _cuts(request: Request, kind: str, names: tuple[str, ...]) -> bool:
    """May the sharding type be had, and would it cut one of the tables? TorchRec leaves narrow
    columns whole."""
    tables = [table for table in request.tables if table.name in names]
    if not all(request.allows(table, kind) for table in tables):
        return False
    return kind != "column_wise" or any(table.dim >= 2 * MIN_CW_DIM for table in tables)


def _largest(failed: NoPlan) -> tuple[str, ...]:
    """The fewest tables without which the others fit."""
    left, names = failed.needed, []
    for name, size in sorted(failed.whole.items(), key=lambda pair: -pair[1]):
        if names and left <= failed.capacity * _ALMOST:
            break
        names.append(name)
        left -= size
    return tuple(names)


def _changes(request: Request, culprits: tuple[str, ...]) -> Iterator[tuple[str, str, Request]]:
    of = ", ".join(culprits)
    allowed = {table.name: request.types_of(table) for table in request.tables}
    for kind in ("row_wise", "column_wise"):
        is_new = any(kind not in allowed[name] for name in culprits)
        if is_new and _cuts(request, kind, culprits):
            own = {**request.constraints, **dict.fromkeys(culprits, kind)}
            yield kind, f"{kind} for {of}", replace(request, constraints=own)

    def halved(table: Table) -> Table:
        half = replace(table, dtype="fp16")
        return half if any(request.allows(half, kind) for kind in allowed[table.name]) else table

    half = _changed(request, halved, culprits)
    if half != request:
        yield "fp16", f"fp16 for {of}", half
    everything = tuple(allowed)
    if set(everything) != set(culprits):
        changed = _changed(request, halved, everything)
        yield "fp16", "fp16 for all tables", changed
    if request.cluster.device == "cuda":
        for kernel in ("fused_uvm_caching", "fused_uvm"):
            own = {**request.kernels, **dict.fromkeys(culprits, kernel)}
            change = f"{kernel} for {of}: rows in host memory"
            if request.calibration is not None:
                change += ", but timed as the GPU's, since no calibration measures it"
            yield "uvm", change, replace(request, kernels=own)


def _changed(request: Request, change: Callable[[Table], Table], names: tuple[str, ...]) -> Request:
    tables = tuple(change(table) if table.name in names else table for table in request.tables)
    return replace(request, tables=tables)


def _try(kind: str, change: str, request: Request) -> Remedy:
    plan = make_plan(request)
    return Remedy(
        kind=kind, change=change, step_ms=plan.step_ms if isinstance(plan, Planned) else None
    )


def _halved(request: Request, culprits: tuple[str, ...]) -> Remedy:
    """The most rows, a power of two fewer, with which there is a plan."""
    of, divisor = ", ".join(culprits), 1
    remedy = None
    while remedy is None or (remedy.step_ms is None and divisor < _FEWEST_ROWS):
        divisor *= 2
        fewer = _changed(request, partial(_cut, divisor=divisor), culprits)
        remedy = _try("hash", f"ids of {of} hashed to 1/{divisor} of the rows", fewer)
    return remedy


def _cut(table: Table, divisor: int) -> Table:
    return replace(table, rows=max(1, table.rows // divisor))


def _more_ranks(request: Request) -> Remedy:
    factor, remedy = 1, None
    while remedy is None or (remedy.step_ms is None and factor < _MOST_RANKS):
        factor *= 2
        size = request.cluster.world_size * factor
        larger = replace(request, cluster=replace(request.cluster, world_size=size))
        remedy = _try("ranks", f"{size} ranks instead of {request.cluster.world_size}", larger)
    return remedy
