"""The tables that a run's YAML and data ask for, and what a pipeline can read ahead for."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from flm_apps.run_folder import config_file
from torch import nn
from torchrec import EmbeddingBagCollection

from flm_torchrec.assemble import table_rows
from flm_torchrec.build import build_model
from flm_torchrec.build_data import open_data
from flm_torchrec.config import RunConfig
from flm_torchrec.data.dataset import Column, Dataset
from flm_torchrec.encoder import load_encoder
from flm_torchrec.planning.findings import Finding
from flm_torchrec.planning.overlap import feeds
from flm_torchrec.planning.tables import Table
from flm_torchrec.typed_yaml import load_yaml

_OFFLINE = (
    "all tables are fed by KeyedJaggedTensors of the batch, so the exchange of their ids overlaps "
    "with the step before; how much time that hides, and whether workers make batches fast "
    "enough, only a run can tell"
)


@dataclass(frozen=True, eq=False)
class Configured:
    """A run that is not trained."""

    config: RunConfig
    dataset: Dataset
    model: nn.Module

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """Those of the model, each with the mean number of ids in its data."""
        columns = _columns(self.dataset)
        return tuple(
            Table(
                name=table.name,
                rows=table.num_embeddings,
                dim=table.embedding_dim,
                pooling=columns.get(table.name, 1.0),
                features=tuple(table.feature_names),
                is_weighted=module.is_weighted(),
            )
            for module in self.model.modules()
            if isinstance(module, EmbeddingBagCollection)
            for table in module.embedding_bag_configs()
        )

    @property
    def findings(self) -> list[Finding]:
        """Tables whose exchange of ids can't overlap with a step."""
        found = [
            Finding(
                level="warning",
                kind="not_pipelined",
                text=f"{feed.module} {feed.problem}: the exchange of its ids does not overlap",
            )
            for feed in feeds(self.model)
            if feed.problem is not None
        ]
        return found or [Finding(level="note", kind="pipelined", text=_OFFLINE)]

    def batch_size(self, world_size: int) -> int:
        """About how many rows a table reads on one rank, as training has it."""
        return max(1, table_rows(self.config, self.dataset, world_size))


def configured(name: str, overrides: Sequence[str] = ()) -> Configured:
    """A YAML file of the user's, or a bundled one, with its data and its model."""
    config = load_yaml(config_file(name), RunConfig, overrides)
    dataset = open_data(config)
    encoder = load_encoder(config.views.text) if config.views.text else None
    return Configured(config, dataset, build_model(config, dataset, encoder))


def _columns(dataset: Dataset) -> dict[str, float]:
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
