"""What is to be planned: tables, the cluster, and what the planner may choose from.

Example:
    request = Request(tables=preset("dlrm-v2"), cluster=cluster)
    freer = replace(request, types=SHARDING_TYPES)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.distributed.optim.apply_optimizer_in_backward import _apply_optimizer_in_backward
from torchrec import EmbeddingBagCollection
from torchrec.distributed.comm import get_local_size
from torchrec.distributed.planner import ParameterConstraints
from torchrec.modules.embedding_configs import DataType, EmbeddingBagConfig

from flm_torchrec.errors import UserError
from flm_torchrec.planning.calibration import Calibration
from flm_torchrec.planning.cluster import Cluster
from flm_torchrec.planning.tables import Dtype, Table
from flm_torchrec.training.optimizers import table_optimizer
from flm_torchrec.training.placing import DATA_PARALLEL, SHARDING_TYPES
from flm_torchrec.training.precision import check_precision, works_with
from flm_torchrec.training.runtime import Runtime

# Every type but data-parallel, whose gradients are dense.
MODEL_PARALLEL = tuple(kind for kind in SHARDING_TYPES if kind != DATA_PARALLEL)
IN_MEMORY = ("fused", "dense")
_DTYPES: Mapping[Dtype, DataType] = {"fp32": DataType.FP32, "fp16": DataType.FP16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Tables to place on a cluster."""

    tables: tuple[Table, ...]
    cluster: Cluster
    batch_size: int = 1024  # bags of a feature on one rank
    optimizer: str = "rowwise_adagrad"
    types: tuple[str, ...] = MODEL_PARALLEL  # sharding types of tables without one of their own
    constraints: Mapping[str, str] = field(default_factory=dict)  # sharding type by table
    kernels: Mapping[str, str] = field(default_factory=dict)  # by table; others: in memory
    bags: Mapping[str, int] = field(default_factory=dict)  # by table, of other batch sizes
    calibration: Calibration | None = None
    communication: str = "fp32"  # of pooled rows and their gradients

    def __post_init__(self) -> None:
        table_optimizer(self.optimizer, 0.0, torch.device(self.cluster.device))
        if self.batch_size < 1:
            raise UserError(f"--batch-size: {self.batch_size}; allowed: 1 or more")
        for kind in (*self.types, *self.constraints.values()):
            if kind not in SHARDING_TYPES:
                raise UserError(f"sharding: '{kind}' is not one of {', '.join(SHARDING_TYPES)}")
        names = [table.name for table in self.tables]
        for table in (*self.constraints, *self.kernels, *self.bags):
            if table not in names:
                raise UserError(f"sharding: '{table}' is no table; allowed: {', '.join(names)}")
        for table in self.tables:
            if self.types_of(table):
                continue
            # None of those asked for works: the first that would at another width tells most.
            asked = self._asked(table)
            at_another = (
                kind
                for kind in asked
                if works_with(kind, communication=self.communication, dtype=table.dtype)
            )
            check_precision(
                table.name,
                sharding_type=next(at_another, asked[0]),
                widths=[table.dim],
                communication=self.communication,
                dtype=table.dtype,
            )

    def types_of(self, table: Table) -> tuple[str, ...]:
        """The sharding types that the planner may choose for a table."""
        return tuple(kind for kind in self._asked(table) if self.allows(table, kind))

    def allows(self, table: Table, kind: str) -> bool:
        """Does the sharding type work with how rows are kept and exchanged?"""
        return works_with(
            kind, communication=self.communication, dtype=table.dtype, width=table.dim
        )

    def _asked(self, table: Table) -> tuple[str, ...]:
        own = self.constraints.get(table.name)
        return self.types if own is None else (own,)

    def kernels_of(self, table: Table) -> tuple[str, ...]:
        """The compute kernels that the planner may choose for a table."""
        own = self.kernels.get(table.name)
        return IN_MEMORY if own is None else (own,)

    def parameter_constraints(self) -> dict[str, ParameterConstraints]:
        """The same in TorchRec's words."""
        constraints = {}
        for table in self.tables:
            bags = self.bags.get(table.name)
            count = len(table.feature_names)
            constraints[table.name] = ParameterConstraints(
                sharding_types=list(self.types_of(table)),
                compute_kernels=list(self.kernels_of(table)),
                pooling_factors=[table.pooling] * count,
                batch_sizes=None if bags is None else [bags] * count,
                is_weighted=table.is_weighted,
            )
        return constraints

    def module(self) -> nn.Module:
        """The tables on the meta device, with the optimizer that adds to their memory."""
        collections = nn.ModuleDict()
        for name, is_weighted in (("plain", False), ("weighted", True)):
            of_kind = [table for table in self.tables if table.is_weighted == is_weighted]
            if of_kind:
                collections[name] = meta_collection(of_kind, is_weighted=is_weighted)
        optimizer_class, settings = table_optimizer(
            self.optimizer, 0.01, torch.device(self.cluster.device)
        )
        _apply_optimizer_in_backward(optimizer_class, collections.parameters(), dict(settings))
        return collections


def cluster_here(runtime: Runtime) -> Cluster:
    """The ranks of this job."""
    return Cluster(
        world_size=runtime.world_size,
        local_world_size=get_local_size(),
        device="cuda" if runtime.device.type == "cuda" else "cpu",
    )


def meta_collection(
    tables: Sequence[Table], *, is_weighted: bool = False
) -> EmbeddingBagCollection:
    """The tables without memory; UserError where torch can't name a module so."""
    for table in tables:
        if "." in table.name or hasattr(nn.ModuleDict(), table.name):
            raise UserError(
                f"table '{table.name}': torch has no room for a module of that name; allowed: "
                f"names without dots that are no method of a module, as {_room(table.name)}"
            )
    return EmbeddingBagCollection(
        device=torch.device("meta"),
        is_weighted=is_weighted,
        tables=[
            EmbeddingBagConfig(
                name=table.name,
                embedding_dim=table.dim,
                num_embeddings=table.rows,
                feature_names=list(table.feature_names),
                data_type=_DTYPES[table.dtype],
            )
            for table in tables
        ],
    )


def _room(name: str) -> str:
    return f"{name.replace('.', '_')}_ids"
