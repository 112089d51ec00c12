"""The ways there are to shard a table."""

from torch import nn
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.types import ShardingOption
from torchrec.distributed.types import ModuleSharder

from flm_torchrec.planning.request import Request
from flm_torchrec.training.placing import Sharder

# Among equals the simplest comes first.
_RANKED = (
    *("table_wise", "row_wise", "column_wise", "table_row_wise", "table_column_wise"),
    *("grid_shard", "data_parallel"),
)


class Enumerator(EmbeddingEnumerator):
    """TorchRec's ways to shard a table, in one order, each told once."""

    def enumerate(
        self, module: nn.Module, sharders: list[ModuleSharder[nn.Module]]
    ) -> list[ShardingOption]:
        options = super().enumerate(module, sharders)
        whole = {o.name for o in options if o.sharding_type == "table_wise"}
        options = [
            option
            for option in options
            if option.sharding_type not in ("column_wise", "table_column_wise")
            or len(option.shards) > 1
            or option.name not in whole
        ]
        place = {name: number for number, name in enumerate(o.name for o in options)}
        # TorchRec walks through sets.
        options.sort(key=lambda o: (place[o.name], len(o.shards), _RANKED.index(o.sharding_type)))
        return options


def without_way(request: Request) -> list[str]:
    """Tables that no sharding type with an allowed kernel is there for."""
    device, sharder = request.cluster.device, Sharder()
    return [
        table.name
        for table in request.tables
        if not any(
            kernel in sharder.compute_kernels(kind, device)
            for kind in request.types_of(table)
            for kernel in request.kernels_of(table)
        )
    ]
