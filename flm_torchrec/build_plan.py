"""A run's configuration and data become what its tables are planned from, and a plan of them."""

import numpy as np
from torch import nn
from torchrec import EmbeddingBagCollection
from torchrec.distributed.types import ShardingPlan

from flm_torchrec.config import RunConfig
from flm_torchrec.data.dataset import Column, Dataset
from flm_torchrec.errors import UserError
from flm_torchrec.planning.calibration import Calibration, fitting_calibration
from flm_torchrec.planning.cluster import Cluster
from flm_torchrec.planning.plan import SECONDS
from flm_torchrec.planning.planner import plan_model
from flm_torchrec.planning.request import Request, cluster_here
from flm_torchrec.planning.tables import Table
from flm_torchrec.training.placing import AUTO, Planner, table_names
from flm_torchrec.training.runtime import Runtime


def table_rows(config: RunConfig, dataset: Dataset, world_size: int) -> int:
    """About how many rows a table's KJT has on one rank: the planner weighs kinds by it."""
    data, schema = config.data, dataset.schema.interactions
    if schema is None:
        return 1
    if schema.order == "by_log":
        return max(1, data.rows // world_size)
    met = data.users * data.window // world_size
    num_items = 0 if dataset.items is None else len(dataset.items.ids)
    rows = num_items if data.negatives == "all" else min(num_items, met) + data.negatives
    return max(1, rows)


def tables_of(config: RunConfig, dataset: Dataset, model: nn.Module) -> tuple[Table, ...]:
    """The tables of a run's model, not yet sharded, each with the mean ids a row of its data."""
    pooling = _pooling(dataset)
    return tuple(
        Table(
            name=table.name,
            rows=table.num_embeddings,
            dim=table.embedding_dim,
            pooling=pooling.get(table.name, 1.0),
            features=tuple(table.feature_names),
            is_weighted=module.is_weighted(),
            dtype=config.train.sparse.dtype,
        )
        for module in model.modules()
        if isinstance(module, EmbeddingBagCollection)
        for table in module.embedding_bag_configs()
    )


def own_sharding(config: RunConfig) -> dict[str, str]:
    """The sharding types of the tables that have one of their own."""
    return {table: kind for table, kind in config.sharding.items() if table != "default"}


def plan_request(
    config: RunConfig,
    dataset: Dataset,
    model: nn.Module,
    cluster: Cluster,
    calibration: Calibration | None,
) -> Request:
    """What training on the cluster would plan."""
    default = config.sharding.get("default", "auto")
    return Request(
        tables=tables_of(config, dataset, model),
        cluster=cluster,
        batch_size=table_rows(config, dataset, cluster.world_size),
        optimizer=config.train.sparse.optimizer,
        types=AUTO if default == "auto" else (default,),
        constraints=own_sharding(config),
        calibration=calibration,
        communication=config.train.sparse.communication,
    )


def check_tables_are_there(config: RunConfig, model: nn.Module) -> None:
    """Raise UserError where something is asked of tables and the model, not sharded, has none."""
    if table_names(model):
        return
    sparse = config.train.sparse
    asked = {
        "train.sparse.dtype": (sparse.dtype, "fp32"),
        "train.sparse.communication": (sparse.communication, "fp32"),
        "train.allow_unpipelined": (config.train.allow_unpipelined, False),
        "calibration": (config.calibration, None),
    }
    for key, (value, usual) in asked.items():
        if value != usual:
            raise UserError(
                f"{key}: {value} has no effect: of these data the model has no tables; allowed: "
                f"{'null' if usual is None else str(usual).lower()}"
            )


def run_planner(config: RunConfig, dataset: Dataset, runtime: Runtime) -> Planner | None:
    """A planner by the run's calibration, for the ranks there are; None without one."""
    if config.calibration is None:
        return None
    path = config.calibration
    # The other ranks wait for the plan, half as long as they would wait at all.
    seconds = min(SECONDS, max(1, config.train.timeout // 2))
    cluster = cluster_here(runtime)

    def plan(model: nn.Module) -> ShardingPlan:
        # On one rank alone, so that the others hear of what is wrong with it.
        calibration = fitting_calibration(path, cluster, option="calibration:")
        request = plan_request(config, dataset, model, cluster, calibration)
        return plan_model(request, model, seconds=seconds, by=f" by {path}")

    return plan


def _pooling(dataset: Dataset) -> dict[str, float]:
    """Mean number of ids a row by table."""
    groups: dict[str, dict[str, Column]] = {"context": dict(dataset.interactions.context)}
    if dataset.users is not None:
        groups["users"] = dict(dataset.users.columns)
    if dataset.items is not None:
        groups["items"] = dict(dataset.items.columns)
    return {
        f"{prefix}_{name}": max(0.01, float(np.diff(column.bounds).mean()))
        for prefix, columns in groups.items()
        for name, column in columns.items()
        if len(column.bounds) > 1
    }
