"""From a model with EmbeddingBagCollections to one whose tables live on the ranks.

dmp, optimizer = shard(
    model, runtime.device, batch_size=256, sparse_optimizer="rowwise_adagrad", sparse_lr=0.05,
    dense_optimizer=lambda named: torch.optim.AdamW([p for _, p in named], lr=1e-3))
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import chain
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed._shard.sharding_spec.api import EnumerableShardingSpec
from torch.distributed.optim.apply_optimizer_in_backward import _apply_optimizer_in_backward
from torchrec import EmbeddingBagCollection
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.comm import get_local_size
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import PlannerError
from torchrec.distributed.types import (
    EmbeddingModuleShardingPlan,
    ModuleSharder,
    ParameterSharding,
    ShardingPlan,
    ShardingType,
)
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizer

from flm_torchrec.errors import UserError
from flm_torchrec.training.compat import topology
from flm_torchrec.training.optimizers import (
    FUSED_ONLY,
    DenseOptimizer,
    OptimizerFactory,
    ReadyOptimizer,
    table_optimizer,
)

SHARDING_TYPES = tuple(kind.value for kind in ShardingType)
DATA_PARALLEL = ShardingType.DATA_PARALLEL.value
# Data-parallel tables have dense gradients and column-wise ones another optimizer state: only for
# those who ask.
_AUTO = [ShardingType.TABLE_WISE.value, ShardingType.ROW_WISE.value]
# A share of the device that the planner keeps free for everything that is no table.
_RESERVED = 0.15


class Sharder(EmbeddingBagCollectionSharder):
    """Offers every sharding type: the row-wise ones run on CPU too, but TorchRec hides them."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        return list(SHARDING_TYPES)


def _sharders() -> list[ModuleSharder[nn.Module]]:
    return cast("list[ModuleSharder[nn.Module]]", [Sharder()])


def shard(
    model: nn.Module,
    device: torch.device,
    *,
    batch_size: int,
    sparse_optimizer: str,
    sparse_lr: float,
    dense_optimizer: OptimizerFactory,
    constraints: Mapping[str, str] | None = None,
    default: str = "auto",
    kernels: Mapping[str, str] | None = None,
) -> tuple[DistributedModelParallel, CombinedOptimizer]:
    """Spread `model`'s tables over the ranks; returns the model and the optimizer of all of it.

    `batch_size` is the rows of a table's KJT on one rank. `constraints` gives single tables their
    sharding type, `default` is that of the others ("auto": table-wise or row-wise, as planned).
    `kernels` gives single tables their compute kernel; that of the others is planned.
    `dense_optimizer` is called with the names and parameters outside the tables that require
    gradients. Tables are updated inside backward, data-parallel ones by the same rule after it.
    Gradients are averaged over ranks everywhere: let a loss be a mean over the rank's own batch.
    """
    optimizer_class, settings = table_optimizer(sparse_optimizer, sparse_lr, device)
    plan = _plan(model, device, batch_size, constraints or {}, default, kernels or {})
    tables = {name: placement.sharding_type for name, placement in _placements(plan)}
    for name, parameter in model.named_parameters():
        if tables.get(name, DATA_PARALLEL) != DATA_PARALLEL:
            # A copy: TorchRec adds to it.
            _apply_optimizer_in_backward(optimizer_class, [parameter], dict(settings))
    dmp = DistributedModelParallel(model, device=device, plan=plan, sharders=_sharders())
    optimizers: list[KeyedOptimizer] = [dmp.fused_optimizer]
    named = dict(dmp.named_parameters())
    copied = {name: named[name] for name, kind in tables.items() if kind == DATA_PARALLEL}
    if copied:
        if sparse_optimizer in FUSED_ONLY:
            raise UserError(
                f"sharding: {next(iter(copied))} is data_parallel, but {sparse_optimizer} has a "
                "fused kernel only; allowed: another sharding type, or another optimizer"
            )
        optimizers.append(
            ReadyOptimizer(copied, lambda pairs: optimizer_class([p for _, p in pairs], **settings))
        )
    dense = {name: p for name, p in named.items() if name not in tables and p.requires_grad}
    if dense:
        optimizers.append(DenseOptimizer(dense, dense_optimizer))
    return dmp, CombinedOptimizer(list(optimizers))


def describe_plan(dmp: DistributedModelParallel) -> list[dict[str, Any]]:
    """One entry a table, ready for JSON: where it lives and how it is computed."""
    rows = []
    for name, placement in _placements(dmp.plan):
        shape = dict(dmp.named_parameters())[name].shape
        spec = placement.sharding_spec
        if isinstance(spec, EnumerableShardingSpec):
            ends = [
                [offset + size for offset, size in zip(s.shard_offsets, s.shard_sizes, strict=True)]
                for s in spec.shards
            ]
            shape = [max(places) for places in zip(*ends, strict=True)]
        rows.append(
            {
                "table": name.removesuffix(".weight").rpartition(".")[2],
                "parameter": name,
                "sharding_type": placement.sharding_type,
                "kernel": placement.compute_kernel,
                "ranks": placement.ranks,
                "rows": shape[0],
                "dim": shape[1],
            }
        )
    return rows


def list_optimizers(
    dmp: DistributedModelParallel, optimizer: CombinedOptimizer
) -> dict[str, tuple[str, float]]:
    """The optimizer and learning rate of each parameter of the model, on whatever rank it is.

    Every rank must call it. A parameter without gradients has ("frozen", 0.0). A parameter that
    should be trained by one optimizer and is by none or by several is a RuntimeError.
    """
    here = [(name, kind, lr) for name, kind, lr in _trained(optimizer)]
    everywhere: list[list[tuple[str, str, float]]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(everywhere, here)
    found: dict[str, tuple[str, float]] = {}
    for name, parameter in dmp.named_parameters():
        local = [sum(1 for n, _, _ in rank if n == name) for rank in everywhere]
        kinds = {(kind, lr) for rank in everywhere for n, kind, lr in rank if n == name}
        expected = 1 if parameter.requires_grad else 0
        if len(kinds) != expected or max(local) > 1:
            raise RuntimeError(
                f"parameter {name} has optimizers {sorted(kinds)}, {max(local)} on one rank; "
                f"it should have {expected}"
            )
        found[name] = kinds.pop() if kinds else ("frozen", 0.0)
    unknown = {n for rank in everywhere for n, _, _ in rank} - found.keys()
    if unknown:
        raise RuntimeError(f"optimizers hold parameters that the model lacks: {sorted(unknown)}")
    return found


def _trained(optimizer: KeyedOptimizer, path: str = "") -> Iterator[tuple[str, str, float]]:
    """Name, optimizer and learning rate, once for each time a parameter is held on this rank."""
    if isinstance(optimizer, CombinedOptimizer):
        for key, part in optimizer.optimizers:
            yield from _trained(part, CombinedOptimizer.prepend_opt_key(key, path))
        return
    for name, parameter in optimizer.params.items():
        for group in optimizer.param_groups:
            for _ in (p for p in group["params"] if p is parameter):
                key = CombinedOptimizer.prepend_opt_key(name, path)
                yield key, _kind(optimizer), float(group["lr"])


def _kind(optimizer: KeyedOptimizer) -> str:
    if isinstance(optimizer, ReadyOptimizer):
        return optimizer.name
    module = getattr(optimizer, "_emb_module", None)  # of a fused optimizer, whatever its kernel
    return type(optimizer).__name__ if module is None else f"fused {module.optimizer.value}"


def _placements(plan: ShardingPlan) -> Iterator[tuple[str, ParameterSharding]]:
    """Parameter name and placement of every table."""
    for path, tables in plan.plan.items():
        assert isinstance(tables, EmbeddingModuleShardingPlan)
        for table, placement in tables.items():
            prefix = f"{path}." if path else ""
            yield f"{prefix}embedding_bags.{table}.weight", placement


def _plan(
    model: nn.Module,
    device: torch.device,
    batch_size: int,
    constraints: Mapping[str, str],
    default: str,
    kernels: Mapping[str, str],
) -> ShardingPlan:
    tables = [
        config.name
        for module in model.modules()
        if isinstance(module, EmbeddingBagCollection)
        for config in module.embedding_bag_configs()
    ]
    for table, kind in constraints.items():
        _check("sharding: table", table, tables)
        _check(f"sharding.{table}", kind, SHARDING_TYPES)
    _check("sharding.default", default, ("auto", *SHARDING_TYPES))
    kinds = {table: constraints.get(table, default) for table in tables}
    types = {table: _AUTO if kind == "auto" else [kind] for table, kind in kinds.items()}
    for table, kernel in kernels.items():
        _check("kernels: table", table, tables)
        offered = [Sharder().compute_kernels(kind, device.type) for kind in types[table]]
        _check(f"kernels.{table}", kernel, list(dict.fromkeys(chain.from_iterable(offered))))
    planner = EmbeddingShardingPlanner(
        topology=topology(dist.get_world_size(), get_local_size(), device.type),
        batch_size=batch_size,
        storage_reservation=FixedPercentageStorageReservation(_RESERVED),
        constraints={
            table: ParameterConstraints(
                sharding_types=of_table,
                compute_kernels=[kernels[table]] if table in kernels else None,
            )
            for table, of_table in types.items()
        },
        debug=False,
    )
    # Planned here once, and told to all: with collective_plan the others would wait for a plan
    # that rank 0 failed to make.
    planned: list[ShardingPlan | str | None] = [None]
    if dist.get_rank() == 0:
        try:
            planned[0] = planner.plan(model, _sharders())
        except (PlannerError, RuntimeError) as error:
            planned[0] = (str(error).strip() or type(error).__name__).splitlines()[0]
    dist.broadcast_object_list(planned, 0)
    if not isinstance(plan := planned[0], ShardingPlan):
        raise UserError(f"no plan shards {kinds} over {dist.get_world_size()} ranks: {plan}")
    return plan


def _check(field: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        near = get_close_matches(value, allowed, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise UserError(f"{field}: '{value}' is not one of {', '.join(allowed)}{hint}")
