"""A plan by TorchRec's own planner for a cluster that need not exist, without a process group.

Example:
    planned = make_plan(Request(tables=preset("dlrm-v2"), cluster=cluster))
    if isinstance(planned, Planned):
        print(planned.step_ms, planned.placements)
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torchrec import EmbeddingBagCollection
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import PerfModel, PlannerError, ShardingOption
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ShardingPlan

from flm_torchrec.planning.costs import OVERHEAD, Costs, Parts
from flm_torchrec.planning.options import Enumerator, without_way
from flm_torchrec.planning.price import placements_of
from flm_torchrec.planning.pricing import costs_of, estimators_of, topology_of
from flm_torchrec.planning.request import Request
from flm_torchrec.planning.silence import silent
from flm_torchrec.training.placing import RESERVED, sharders

SECONDS = 120  # after which no further proposal is tried
_RUNNERS_UP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a table lives."""

    table: str
    sharding_type: str
    kernel: str
    told: str  # both in a word
    ranks: tuple[int, ...]  # of its shards
    shards: tuple[tuple[int, int], ...]  # rows and width
    hbm: int  # bytes on all ranks
    host_memory: int
    slowest_ms: float  # of its shards


@dataclass(frozen=True, slots=True, kw_only=True)
class RankLoad:
    """What a rank holds and does."""

    rank: int
    hbm: int
    host_memory: int
    parts_ms: Parts
    total_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerUp:
    """Another plan that was found, by what it does otherwise."""

    step_ms: float
    differs: dict[str, str]  # sharding type and kernel by table


@dataclass(frozen=True, slots=True, kw_only=True)
class Bottleneck:
    """Where a step's time goes."""

    rank: int
    part: str
    table: str  # that takes most of the part there


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The best plan that was found."""

    request: Request
    step_ms: float
    placements: tuple[Placement, ...]
    ranks: tuple[RankLoad, ...]
    bottleneck: Bottleneck
    runners_up: tuple[RunnerUp, ...]
    proposals: int
    seconds: float  # that planning took
    as_torchrec: ShardingPlan  # of the request's own module

    @property
    def sharding(self) -> dict[str, str]:
        """The plan as the `sharding` of a run's YAML: the commonest type, and tables of others."""
        types = {placed.table: placed.sharding_type for placed in self.placements}
        default = Counter(types.values()).most_common(1)[0][0]
        others = {table: kind for table, kind in types.items() if kind != default}
        return {"default": default, **others}

    def of_model(self, model: nn.Module) -> ShardingPlan:
        """The plan as one of the collections in which `model`, not yet sharded, has the tables."""
        placements = placements_of(self.as_torchrec)
        return ShardingPlan(
            plan={
                path: EmbeddingModuleShardingPlan(
                    {table.name: placements[table.name] for table in module.embedding_bag_configs()}
                )
                for path, module in model.named_modules()
                if isinstance(module, EmbeddingBagCollection)
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPlan:
    """Why nothing fits."""

    request: Request
    reason: str
    unfit: tuple[str, ...]  # tables of which a shard is larger than a rank's memory in every way
    smallest: dict[str, int]  # bytes by table: its largest shard, sharded as finely as allowed
    whole: dict[str, int]  # bytes by table
    room: int  # bytes of one rank that tables may take
    needed: int  # bytes of all tables in the smallest way
    capacity: int  # bytes of all ranks that tables may take
    seconds: float


class _Recorder(PerfModel):
    """Rates plans, and keeps the best of them."""

    def __init__(self, costs: Costs) -> None:
        self.costs = costs
        self.best: list[tuple[float, dict[str, str]]] = []

    def rate(self, plan: list[ShardingOption]) -> float:
        cost = self.costs.rate(plan)
        choice = {option.name: _told(option) for option in plan}
        if all(choice != other for _, other in self.best):
            self.best = sorted([*self.best, (cost, choice)], key=lambda p: p[0])[: _RUNNERS_UP + 1]
        return cost


def make_plan(request: Request, *, seconds: int = SECONDS) -> Planned | NoPlan:
    """Plan with TorchRec's planner, on its own estimates or calibrated ones; no further proposal
    is tried after `seconds`."""
    began = time.perf_counter()
    topology = topology_of(request)
    constraints = request.parameter_constraints()
    enumerator = Enumerator(
        topology, request.batch_size, constraints, estimators_of(request, topology, constraints)
    )
    recorder = _Recorder(costs_of(request))
    planner = EmbeddingShardingPlanner(
        topology=topology,
        batch_size=request.batch_size,
        enumerator=enumerator,
        storage_reservation=FixedPercentageStorageReservation(RESERVED),
        performance_model=recorder,
        stats=[],
        constraints=constraints,
        debug=False,
        timeout_seconds=seconds,
    )
    module = request.module()
    ways = sharders(request.communication, planning=True)
    with silent():
        if missing := without_way(request):
            return _no_plan(request, topology, [], missing, began)
        options = enumerator.enumerate(module, ways)
        try:
            plan = planner.plan(module, ways)
        except PlannerError:
            return _no_plan(request, topology, options, [], began)
    return _planned(request, recorder, plan, planner, began)


def _told(option: ShardingOption) -> str:
    kind, kernel = option.sharding_type, option.compute_kernel
    shards = f" in {len(option.shards)}" if "column" in kind else ""
    return f"{kind}{shards}" if kernel in ("fused", "dense") else f"{kind}{shards}, {kernel}"


def _planned(
    request: Request,
    recorder: _Recorder,
    as_torchrec: ShardingPlan,
    planner: EmbeddingShardingPlanner,
    began: float,
) -> Planned:
    costs, plan = recorder.costs, planner._best_plan
    assert plan is not None
    loads = costs.loads(plan)
    memory = [[0, 0] for _ in loads]
    for option in plan:
        for shard in option.shards:
            assert shard.rank is not None
            assert shard.storage is not None
            memory[shard.rank][0] += shard.storage.hbm
            memory[shard.rank][1] += shard.storage.ddr
    ranks = tuple(
        RankLoad(rank=rank, hbm=hbm, host_memory=host, parts_ms=parts, total_ms=costs.busy(parts))
        for rank, (parts, (hbm, host)) in enumerate(zip(loads, memory, strict=True))
    )
    own = {option.name: _told(option) for option in plan}
    return Planned(
        request=request,
        step_ms=costs.step(loads),
        placements=tuple(_placement(option, costs) for option in plan),
        ranks=ranks,
        bottleneck=_bottleneck(plan, ranks, costs),
        runners_up=tuple(
            RunnerUp(step_ms=cost, differs={k: v for k, v in choice.items() if v != own[k]})
            for cost, choice in recorder.best
            if choice != own
        )[:_RUNNERS_UP],
        proposals=planner._num_proposals,
        as_torchrec=as_torchrec,
        seconds=time.perf_counter() - began,
    )


def _placement(option: ShardingOption, costs: Costs) -> Placement:
    storages = [shard.storage for shard in option.shards if shard.storage is not None]
    return Placement(
        table=option.name,
        sharding_type=option.sharding_type,
        kernel=option.compute_kernel,
        told=_told(option),
        ranks=tuple(shard.rank for shard in option.shards if shard.rank is not None),
        shards=tuple((shard.size[0], shard.size[1]) for shard in option.shards),
        hbm=sum(storage.hbm for storage in storages),
        host_memory=sum(storage.ddr for storage in storages),
        slowest_ms=max(costs.busy(costs.parts(shard)) for shard in option.shards),
    )


def _bottleneck(
    plan: Sequence[ShardingOption], ranks: Sequence[RankLoad], costs: Costs
) -> Bottleneck:
    slowest = max(ranks, key=lambda load: load.total_ms)
    counted = costs.of_step(slowest.parts_ms)
    part = max(counted, key=lambda name: counted[name])
    by_table: dict[str, float] = {}
    # What is fixed belongs to no table: the busiest one is named then.
    of_part = costs.busy if part == OVERHEAD else lambda parts: parts[part]
    for option in plan:
        for shard in option.shards:
            if shard.rank == slowest.rank:
                by_table[option.name] = by_table.get(option.name, 0) + of_part(costs.parts(shard))
    # A rank may have nothing but what all ranks wait for.
    table = max(by_table, key=lambda name: by_table[name]) if by_table else plan[0].name
    return Bottleneck(rank=slowest.rank, part=part, table=table)


def _no_plan(
    request: Request,
    topology: Topology,
    options: Sequence[ShardingOption],
    missing: Sequence[str],
    began: float,
) -> NoPlan:
    """Told by arithmetic on the ways there are to shard each table."""
    is_cuda = request.cluster.device == "cuda"
    storage = topology.devices[0].storage
    room = int(storage.hbm * (1 - RESERVED)) if is_cuda else storage.ddr
    largest: dict[str, int] = {}
    whole: dict[str, int] = {}
    for option in options:
        sizes = [
            shard.storage.hbm if is_cuda else shard.storage.ddr
            for shard in option.shards
            if shard.storage is not None
        ]
        largest[option.name] = min(max(sizes), largest.get(option.name, max(sizes)))
        whole[option.name] = min(sum(sizes), whole.get(option.name, sum(sizes)))
    unfit = tuple(name for name, size in largest.items() if size > room)
    needed = sum(whole.values())
    capacity = room * topology.world_size
    if missing:
        kinds = {table.name: " or ".join(request.types_of(table)) for table in request.tables}
        reason = f"there is no way to shard {missing[0]} by {kinds[missing[0]]}"
    elif unfit:
        reason = f"{', '.join(unfit)} fit{'s' if len(unfit) == 1 else ''} no rank"
    elif needed > capacity:
        reason = "all tables together are larger than the memory of all ranks"
    else:
        reason = "each table fits a rank, but not all of them together"
    return NoPlan(
        request=request,
        reason=reason,
        unfit=unfit,
        smallest=largest,
        whole=whole,
        room=room,
        needed=needed,
        capacity=capacity,
        seconds=time.perf_counter() - began,
    )
