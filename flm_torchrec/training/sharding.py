"""Shard a model's tables over the ranks, and give every parameter its optimizer: the one recipe.

Example:
    dmp, optimizer = shard(model, device, batch_size=1024, sparse_optimizer="rowwise_adagrad",
                           sparse_lr=0.05, dense_optimizer=lambda named: AdamW([p for _, p in named]))
"""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward as apply_optimizer_in_backward
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints
from torchrec.distributed.types import ShardingType
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.optim import LAMB, Adagrad, Adam, PartialRowWiseAdam, RowWiseAdagrad, SGD
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter

from flm_torchrec.errors import UserError
from flm_torchrec.training.compat import make_topology

DenseOptimizer = Callable[[Iterable[tuple[str, nn.Parameter]]], torch.optim.Optimizer]

SHARDING_TYPES = tuple(kind.value for kind in ShardingType)
ON_CPU: dict[str, type[torch.optim.Optimizer]] = {
    "rowwise_adagrad": RowWiseAdagrad,
    "adagrad": Adagrad,
    "sgd": SGD,
}
ON_GPU = ON_CPU | {"adam": Adam, "partial_rowwise_adam": PartialRowWiseAdam, "lamb": LAMB}
# What `auto` lets the planner choose from. Data-parallel tables would fall to the dense optimizer
# with dense gradients; column shards would each keep a row-wise state of their own.
AUTO = [ShardingType.TABLE_WISE.value, ShardingType.ROW_WISE.value]


class Sharder(EmbeddingBagCollectionSharder):
    """TorchRec's sharder, with the types that work on CPU although it doesn't list them there."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """Every type, on every device."""
        del compute_device_type
        return list(SHARDING_TYPES)


def shard(
    model: nn.Module,
    device: torch.device,
    *,
    batch_size: int,
    sparse_optimizer: str,
    sparse_lr: float,
    dense_optimizer: DenseOptimizer,
    constraints: Mapping[str, str] | None = None,
    default: str = "auto",
) -> tuple[DistributedModelParallel, CombinedOptimizer]:
    """Wrap `model` for the current process group.

    The tables' optimizer runs inside backward at `sparse_lr`; `dense_optimizer` makes the one for
    all other trainable parameters. `constraints` names a sharding type by table, `default` that of
    all others. `batch_size` is the largest of a rank's KJTs, for the planner.

    Raises UserError for an optimizer the device lacks, an unknown table or an unknown type.
    """
    optimizers = ON_GPU if device.type == "cuda" else ON_CPU
    if sparse_optimizer not in optimizers:
        raise UserError(
            f"train.sparse.optimizer: {sparse_optimizer!r} has no fused kernel on {device.type}; "
            f"allowed there: {', '.join(optimizers)}"
        )
    types = _types_by_table(model, constraints or {}, default)
    for name, parameter in _table_parameters(model).items():
        if types[name] != [ShardingType.DATA_PARALLEL.value]:
            apply_optimizer_in_backward(
                optimizers[sparse_optimizer], [parameter], {"lr": sparse_lr}
            )
    sharder = Sharder()
    planner = EmbeddingShardingPlanner(
        topology=make_topology(
            world_size=dist.get_world_size(),
            local_world_size=int(os.environ.get("LOCAL_WORLD_SIZE", dist.get_world_size())),
            device=device,
            memory=_memory(device),
        ),
        batch_size=batch_size,
        constraints={
            table: ParameterConstraints(sharding_types=kinds) for table, kinds in types.items()
        },
        debug=False,
    )
    group = dist.group.WORLD
    assert group is not None, "start a process group first"
    plan = planner.collective_plan(model, [sharder], group)  # type: ignore[list-item]
    dmp = DistributedModelParallel(model, device=device, plan=plan, sharders=[sharder])  # type: ignore[list-item]
    dense = KeyedOptimizerWrapper(
        {
            name: parameter
            for name, parameter in in_backward_optimizer_filter(dmp.named_parameters())
            if parameter.requires_grad
        },
        lambda named: dense_optimizer(named.items()),
        pass_params_dict=True,
    )
    return dmp, CombinedOptimizer([("sparse", dmp.fused_optimizer), ("dense", dense)])


def _table_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Table name -> its weight."""
    return {
        config.name: module.embedding_bags[config.name].weight  # type: ignore[dict-item]
        for module in model.modules()
        if isinstance(module, EmbeddingBagCollection)
        for config in module.embedding_bag_configs()
    }


def _types_by_table(
    model: nn.Module, constraints: Mapping[str, str], default: str
) -> dict[str, list[str]]:
    tables = list(_table_parameters(model))
    unknown = [table for table in constraints if table not in tables]
    if unknown:
        raise UserError(f"sharding.{unknown[0]}: no such table; allowed: default, {tables}")
    allowed = ("auto", *SHARDING_TYPES)
    for table, kind in {**constraints, "default": default}.items():
        if kind not in allowed:
            raise UserError(f"sharding.{table}: {kind!r}; allowed: {', '.join(allowed)}")
    chosen = {table: constraints.get(table, default) for table in tables}
    return {table: AUTO if kind == "auto" else [kind] for table, kind in chosen.items()}


def _memory(device: torch.device) -> int:
    """What one rank may fill, in bytes: its GPU's memory, or its share of the machine's."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return pages // int(os.environ.get("LOCAL_WORLD_SIZE", dist.get_world_size()))


def describe_plan(dmp: DistributedModelParallel) -> list[dict[str, Any]]:
    """One entry a table: where its rows lie."""
    state = dmp.state_dict()
    entries = []
    for path, module_plan in dmp.plan.plan.items():
        for table, sharding in module_plan.items():  # type: ignore[attr-defined]
            rows, dim = state[f"{path}.embedding_bags.{table}.weight"].size()
            entries.append(
                {
                    "table": table,
                    "rows": rows,
                    "dim": dim,
                    "sharding": sharding.sharding_type,
                    "kernel": sharding.compute_kernel,
                    "ranks": sharding.ranks,
                }
            )
    return entries


def list_optimizers(
    dmp: DistributedModelParallel, optimizer: CombinedOptimizer
) -> dict[str, tuple[str, float]]:
    """Every trainable parameter of this rank with the name and learning rate of its one optimizer.

    Raises RuntimeError when a parameter has none, or more than one.
    """
    found: dict[str, list[tuple[str, float]]] = {}
    for kind, keyed in optimizer.optimizers:
        names = {id(parameter): name for name, parameter in keyed.params.items()}
        for group in keyed.param_groups:
            for parameter in group["params"]:
                name = names[id(parameter)]
                found.setdefault(name.removeprefix("sparse."), []).append((kind, group["lr"]))
    wrong = {
        name: found.get(name, [])
        for name, parameter in dmp.named_parameters()
        # A table without rows on this rank is there with an empty weight.
        if parameter.requires_grad and parameter.numel() and len(found.get(name, [])) != 1
    }
    if wrong:
        raise RuntimeError(f"parameters without exactly one optimizer: {wrong}")
    return {name: entries[0] for name, entries in found.items()}
