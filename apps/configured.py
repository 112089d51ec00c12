"""The tables that a run's YAML and data ask for, and what a pipeline can read ahead for."""

from collections.abc import Sequence
from dataclasses import dataclass

from flm_apps.run_folder import config_file
from torch import nn

from flm_torchrec.build import build_model
from flm_torchrec.build_data import open_data
from flm_torchrec.build_plan import own_sharding, table_rows, tables_of
from flm_torchrec.config import RunConfig
from flm_torchrec.data.dataset import Dataset
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

    @property
    def tables(self) -> tuple[Table, ...]:
        """Those of the model, each with the mean number of ids in its data."""
        return tables_of(self.config, self.dataset, self.model)

    @property
    def own_sharding(self) -> dict[str, str]:
        """The sharding types of the tables that have one of their own."""
        return own_sharding(self.config)

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
        return table_rows(self.config, self.dataset, world_size)


def configured(name: str, overrides: Sequence[str] = ()) -> Configured:
    """A YAML file of the user's, or a bundled one, with its data and its model."""
    config = load_yaml(config_file(name), RunConfig, overrides)
    dataset = open_data(config)
    encoder = load_encoder(config.views.text) if config.views.text else None
    return Configured(config, dataset, build_model(config, dataset, encoder))
