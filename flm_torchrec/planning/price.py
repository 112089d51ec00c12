"""What a given plan costs: the one that a sharded model has, by a request's costs.

Example:
    priced = price(request, dmp.plan)
    print(priced.step_ms, priced.shards)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from torch import nn
from torch.distributed._shard.sharding_spec.api import EnumerableShardingSpec
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.types import ShardingOption
from torchrec.distributed.types import (
    EmbeddingModuleShardingPlan,
    ParameterSharding,
    ShardingPlan,
)

from flm_torchrec.planning.costs import Parts
from flm_torchrec.planning.pricing import costs_of, estimators_of, topology_of
from flm_torchrec.planning.request import Request
from flm_torchrec.training.placing import sharders


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """The predicted time of a step."""

    step_ms: float
    ranks_ms: Sequence[Parts]
    shards: int  # on the rank that has most


def price(request: Request, plan: ShardingPlan) -> Priced:
    """The cost of a plan for the request's tables on as many ranks as the request has."""
    placements = placements_of(plan)
    topology = topology_of(request)
    constraints = request.parameter_constraints()
    for name, placement in placements.items():
        constraints[name].sharding_types = [placement.sharding_type]
        constraints[name].compute_kernels = [placement.compute_kernel]
    enumerator = EmbeddingEnumerator(
        topology, request.batch_size, constraints, estimators_of(request, topology, constraints)
    )
    chosen = placed(
        enumerator,
        request.module(),
        placements,
        world_size=topology.world_size,
        communication=request.communication,
    )
    costs = costs_of(request)
    loads = costs.loads(chosen)
    counts = [0] * topology.world_size
    for option in chosen:
        for shard in option.shards:
            assert shard.rank is not None
            counts[shard.rank] += 1
    return Priced(step_ms=costs.step(loads), ranks_ms=loads, shards=max(counts))


def placements_of(plan: ShardingPlan) -> dict[str, ParameterSharding]:
    """By table."""
    return {
        name: placement
        for of_module in plan.plan.values()
        for name, placement in cast(EmbeddingModuleShardingPlan, of_module).items()
    }


def placed(
    enumerator: EmbeddingEnumerator,
    model: nn.Module,
    placements: Mapping[str, ParameterSharding],
    *,
    world_size: int,
    communication: str = "fp32",
) -> list[ShardingOption]:
    """The planner's options of a plan for `model`, not yet sharded: one a table, whose shards have
    their ranks, bytes and times."""
    chosen: dict[str, ShardingOption] = {}
    for option in enumerator.enumerate(model, sharders(communication, planning=True)):
        placement = placements[option.name]
        if option.name not in chosen and _is_option(option, placement):
            ranks = placement.ranks or range(world_size)
            for rank, shard in zip(ranks, option.shards, strict=True):
                shard.rank = rank
            chosen[option.name] = option
    assert chosen.keys() == placements.keys(), placements.keys() - chosen.keys()
    return list(chosen.values())


def _is_option(option: ShardingOption, placement: ParameterSharding) -> bool:
    spec = placement.sharding_spec
    if not isinstance(spec, EnumerableShardingSpec):  # data-parallel: whole on every rank
        return True
    return [list(shard.shard_sizes) for shard in spec.shards] == [
        list(shard.size) for shard in option.shards
    ]
