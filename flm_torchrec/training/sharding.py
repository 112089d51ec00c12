"""From a model with EmbeddingBagCollections to one whose tables live on the ranks.

dmp, optimizer = shard(
    model, runtime.device, batch_size=256, sparse_optimizer="rowwise_adagrad", sparse_lr=0.05,
    dense_optimizer=lambda named: torch.optim.AdamW([p for _, p in named], lr=1e-3))
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._shard.sharding_spec.api import EnumerableShardingSpec
from torch.distributed.optim.apply_optimizer_in_backward import _apply_optimizer_in_backward
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.types import ShardingPlan
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizer

from flm_torchrec.errors import UserError
from flm_torchrec.training.optimizers import (
    FUSED_ONLY,
    DenseOptimizer,
    OptimizerFactory,
    ReadyOptimizer,
    table_optimizer,
)
from flm_torchrec.training.placing import (
    DATA_PARALLEL,
    Planner,
    auto_planner,
    check_choices,
    placements,
    plan_on_first_rank,
    sharders,
)
from flm_torchrec.training.precision import check_precision


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
    communication: str = "fp32",
    planner: Planner | None = None,
) -> tuple[DistributedModelParallel, CombinedOptimizer]:
    """Spread `model`'s tables over the ranks; returns the model and the optimizer of all of it.

    `batch_size` is the rows of a table's KJT on one rank. `constraints` gives single tables their
    sharding type, `default` is that of the others ("auto": table-wise or row-wise, as planned).
    `kernels` gives single tables their compute kernel; that of the others is planned. Pooled rows
    and their gradients are exchanged as `communication`: fp32, fp16, bf16 or int8. A `planner` is
    asked, on rank 0, in place of TorchRec's own, and has to know of all these itself.
    `dense_optimizer` is called with the names and parameters outside the tables that require
    gradients. Tables are updated inside backward, data-parallel ones by the same rule after it.
    Gradients are averaged over ranks everywhere: let a loss be a mean over the rank's own batch.
    Raises UserError, on all ranks, for what can't be: see also `check_precision`.
    """
    optimizer_class, settings = table_optimizer(sparse_optimizer, sparse_lr, device)
    chosen: dict[str, Any] = {
        "constraints": constraints or {},
        "default": default,
        "kernels": kernels or {},
    }
    check_choices(model, device, **chosen)
    own = auto_planner(device, batch_size=batch_size, communication=communication, **chosen)
    plan = plan_on_first_rank(planner or own, model)
    _check_plan(model, plan, sparse_optimizer, communication)
    tables = {name: placement.sharding_type for name, placement in placements(plan)}
    for name, parameter in model.named_parameters():
        if tables.get(name, DATA_PARALLEL) != DATA_PARALLEL:
            # A copy: TorchRec adds to it.
            _apply_optimizer_in_backward(optimizer_class, [parameter], dict(settings))
    dmp = DistributedModelParallel(
        model, device=device, plan=plan, sharders=sharders(communication)
    )
    optimizers: list[KeyedOptimizer] = [dmp.fused_optimizer]
    named = dict(dmp.named_parameters())
    copied = {name: named[name] for name, kind in tables.items() if kind == DATA_PARALLEL}
    if copied:
        optimizers.append(
            ReadyOptimizer(copied, lambda pairs: optimizer_class([p for _, p in pairs], **settings))
        )
    dense = {name: p for name, p in named.items() if name not in tables and p.requires_grad}
    if dense:
        optimizers.append(DenseOptimizer(dense, dense_optimizer))
    return dmp, CombinedOptimizer(list(optimizers))


def _check_plan(
    model: nn.Module, plan: ShardingPlan, sparse_optimizer: str, communication: str
) -> None:
    """Raise UserError where a table can't be trained as planned."""
    parameters = dict(model.named_parameters())
    for name, placement in placements(plan):
        kind, spec, table = placement.sharding_type, placement.sharding_spec, _table(name)
        if kind == DATA_PARALLEL and sparse_optimizer in FUSED_ONLY:
            raise UserError(
                f"sharding: {table} is data_parallel, but {sparse_optimizer} has a fused kernel "
                "only; allowed: another sharding type, or another optimizer"
            )
        widths = [parameters[name].shape[1]]
        if isinstance(spec, EnumerableShardingSpec):
            widths = [shard.shard_sizes[1] for shard in spec.shards]
        check_precision(
            table,
            sharding_type=kind,
            widths=widths,
            communication=communication,
            dtype=_dtype(parameters[name]),
        )


def describe_plan(dmp: DistributedModelParallel) -> list[dict[str, Any]]:
    """One entry a table, ready for JSON: where it lives and how it is computed."""
    # A parameter of another rank's table is no measure: it has neither its shape nor its type.
    state = dmp.state_dict()
    return [
        {
            "table": _table(name),
            "parameter": name,
            "sharding_type": placement.sharding_type,
            "kernel": placement.compute_kernel,
            "ranks": placement.ranks,
            "rows": state[name].size()[0],
            "dim": state[name].size()[1],
            "dtype": _dtype(state[name]),
        }
        for name, placement in placements(dmp.plan)
    ]


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


def _dtype(table: Tensor) -> str:
    return "fp16" if table.dtype == torch.float16 else "fp32"


def _table(parameter: str) -> str:
    return parameter.removesuffix(".weight").rpartition(".")[2]
