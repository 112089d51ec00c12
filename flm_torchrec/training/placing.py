"""Where the tables of a model go: sharding types, and a plan by TorchRec's planner."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from typing import cast

import torch
import torch.distributed as dist
from torch import nn
from torchrec import EmbeddingBagCollection
from torchrec.distributed.comm import get_local_size
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import PlannerError
from torchrec.distributed.types import (
    CacheParams,
    EmbeddingModuleShardingPlan,
    ModuleSharder,
    ParameterSharding,
    ShardingPlan,
    ShardingType,
)

from flm_torchrec.errors import UserError
from flm_torchrec.training.compat import topology
from flm_torchrec.training.precision import codecs, works_with

Planner = Callable[[nn.Module], ShardingPlan]

SHARDING_TYPES = tuple(kind.value for kind in ShardingType)
DATA_PARALLEL = ShardingType.DATA_PARALLEL.value
# Data-parallel tables have dense gradients and column-wise ones another optimizer state: only for
# those who ask.
AUTO = (ShardingType.TABLE_WISE.value, ShardingType.ROW_WISE.value)
# A share of the device that the planner keeps free for everything that is no table.
RESERVED = 0.15


class Sharder(EmbeddingBagCollectionSharder):
    """Offers every sharding type: the row-wise ones run on CPU too, but TorchRec hides them."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return list(SHARDING_TYPES)


def sharders(
    communication: str = "fp32", *, planning: bool = False
) -> list[ModuleSharder[nn.Module]]:
    """What shards a model's tables, or plans for them, with exchanges of that kind."""
    own = Sharder(qcomm_codecs_registry=codecs(communication, counted=planning))
    return cast("list[ModuleSharder[nn.Module]]", [own])


def auto_planner(
    device: torch.device,
    *,
    batch_size: int,
    constraints: Mapping[str, str],
    default: str,
    kernels: Mapping[str, str],
    communication: str,
    cached_share: float | None = None,
) -> Planner:
    """TorchRec's planner on its own estimates, for the ranks there are; see `shard`. A kernel that
    caches holds `cached_share` of its rows on the GPU (TorchRec's default: a fifth)."""
    cache = None if cached_share is None else CacheParams(load_factor=cached_share)

    def plan(model: nn.Module) -> ShardingPlan:
        kinds = {table: constraints.get(table, default) for table in table_names(model)}
        planner = EmbeddingShardingPlanner(
            topology=topology(dist.get_world_size(), get_local_size(), device.type),
            batch_size=batch_size,
            storage_reservation=FixedPercentageStorageReservation(RESERVED),
            constraints={
                table: ParameterConstraints(
                    sharding_types=_types(kind, communication),
                    compute_kernels=[kernels[table]] if table in kernels else None,
                    cache_params=cache,
                )
                for table, kind in kinds.items()
            },
            debug=False,
        )
        try:
            return planner.plan(model, sharders(communication, planning=True))
        except (PlannerError, RuntimeError) as error:
            told = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"no plan shards {kinds} over {dist.get_world_size()} ranks: {told}"
            ) from error

    return plan


def plan_on_first_rank(planner: Planner, model: nn.Module) -> ShardingPlan:
    """The plan that rank 0 makes, on all ranks; a UserError of rank 0 is raised by all, and of
    whatever else it raises the others raise a RuntimeError."""
    # Planned here once, and told to all: with collective_plan the others would wait for a plan
    # that rank 0 failed to make.
    planned: list[ShardingPlan | Exception | None] = [None]
    wrong: Exception | None = None
    if dist.get_rank() == 0:
        try:
            planned[0] = planner(model)
        except Exception as error:
            wrong, told = error, f"rank 0 made no plan: {type(error).__name__}: {error}"
            is_of_user = isinstance(error, UserError)
            planned[0] = UserError(str(error)) if is_of_user else RuntimeError(told)
    dist.broadcast_object_list(planned, 0)
    if wrong is not None:
        raise wrong
    plan = planned[0]
    if isinstance(plan, Exception):
        raise plan
    assert isinstance(plan, ShardingPlan), plan
    return plan


def placements(plan: ShardingPlan) -> Iterator[tuple[str, ParameterSharding]]:
    """Parameter name and placement of every table."""
    for path, tables in plan.plan.items():
        assert isinstance(tables, EmbeddingModuleShardingPlan)
        for table, placement in tables.items():
            prefix = f"{path}." if path else ""
            yield f"{prefix}embedding_bags.{table}.weight", placement


def table_names(model: nn.Module) -> list[str]:
    """The tables of a model that is not sharded."""
    return [
        config.name
        for module in model.modules()
        if isinstance(module, EmbeddingBagCollection)
        for config in module.embedding_bag_configs()
    ]


def check_choices(
    model: nn.Module,
    device: torch.device,
    *,
    constraints: Mapping[str, str],
    default: str,
    kernels: Mapping[str, str],
) -> None:
    """Raise UserError where what is chosen for a table is none of what there is."""
    tables = table_names(model)
    for table, kind in constraints.items():
        _check("sharding: table", table, tables)
        _check(f"sharding.{table}", kind, SHARDING_TYPES)
    _check("sharding.default", default, ("auto", *SHARDING_TYPES))
    for table, kernel in kernels.items():
        _check("kernels: table", table, tables)
        types = _types(constraints.get(table, default))
        offered = [Sharder().compute_kernels(kind, device.type) for kind in types]
        _check(f"kernels.{table}", kernel, list(dict.fromkeys(chain.from_iterable(offered))))


def _types(kind: str, communication: str = "fp32") -> list[str]:
    """What a planner may choose from where `kind` is asked for."""
    working = [own for own in AUTO if works_with(own, communication=communication)]
    return working if kind == "auto" else [kind]


def _check(field: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        near = get_close_matches(value, allowed, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise UserError(f"{field}: '{value}' is not one of {', '.join(allowed)}{hint}")
