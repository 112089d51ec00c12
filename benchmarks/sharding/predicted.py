"""What TorchRec's planner expects of a plan: milliseconds of a step, by rank and part.

Example:
    predict(model, dmp.plan, topology(2, 2, "cpu"), batch_size=512, tables=tables).step_ms
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from torchrec.distributed.planner import ParameterConstraints, Topology
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.types import Perf
from torchrec.distributed.types import ParameterSharding, ShardingPlan

from flm_torchrec.planning.price import placed, placements_of
from flm_torchrec.planning.tables import Table

_NONE = Perf(fwd_compute=0.0, fwd_comms=0.0, bwd_compute=0.0, bwd_comms=0.0)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Of a step: what the slowest rank takes, in all and by part."""

    step_ms: float
    parts_ms: Mapping[str, float]  # of the slowest rank
    rank_ms: Sequence[float]


def predict(
    model: nn.Module,
    plan: ShardingPlan,
    topology: Topology,
    *,
    batch_size: int,
    tables: Sequence[Table],
) -> Prediction:
    """The planner's own estimate of a plan for `model`, not yet sharded, of one rank's batch.

    It counts tables and the exchange of rows; the exchange of ids is told as a part of its own,
    and the dense part is unknown to it.
    """
    placements = placements_of(plan)
    enumerator = EmbeddingEnumerator(
        topology,
        batch_size,
        {table.name: _constraints(table, placements[table.name]) for table in tables},
    )
    by_rank: dict[int, Perf] = defaultdict(lambda: _NONE)
    for option in placed(enumerator, model, placements, world_size=topology.world_size):
        for shard in option.shards:
            assert shard.perf is not None
            assert shard.rank is not None
            by_rank[shard.rank] += shard.perf
    totals = [by_rank[rank].total for rank in range(topology.world_size)]
    worst = by_rank[max(range(topology.world_size), key=lambda rank: totals[rank])]
    parts = {
        "input_distribution": worst.input_dist_comms,
        "forward": worst.fwd_compute,
        "output_distribution": worst.fwd_comms,
        "backward_update": worst.bwd_compute + worst.bwd_comms,
        "prefetch": worst.prefetch_compute,
    }
    return Prediction(max(totals), parts, totals)


def _constraints(table: Table, placement: ParameterSharding) -> ParameterConstraints:
    return ParameterConstraints(
        sharding_types=[placement.sharding_type],
        compute_kernels=[placement.compute_kernel],
        pooling_factors=[table.pooling] * len(table.feature_names),
        is_weighted=table.is_weighted,
    )
