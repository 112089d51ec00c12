"""What a plan costs by a calibration: fixed parts and what ids and bytes add, rank by rank.

Every exchange makes the ranks wait for each other, so each part of a step takes as long as on the
rank where it is slowest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torchrec.distributed.planner.types import Perf, Shard, ShardEstimator, ShardingOption

from flm_torchrec.planning.calibration import Calibration, Collective, Line
from flm_torchrec.planning.cluster import Cluster
from flm_torchrec.planning.costs import (
    BACKWARD,
    BACKWARD_EXCHANGE,
    FORWARD,
    FORWARD_EXCHANGE,
    INPUT,
    OVERHEAD,
    Costs,
    Parts,
)
from flm_torchrec.training.precision import NUMBER_BYTES

_ID_BYTES, _POOLED_BYTES = 8, 4  # an id; a number of a pooled row, which is fp32 on its rank
_BY_ROWS = ("row_wise", "table_row_wise", "grid_shard")


@dataclass(frozen=True, slots=True)
class Load:
    """What a shard asks of its rank in a step."""

    ids: float
    bags: float
    row_bytes: float
    table_bytes: float
    pooled_bytes: float

    @property
    def size(self) -> float:
        """Bytes that a lookup moves."""
        return self.ids * self.row_bytes + self.pooled_bytes


class Exchanges:
    """The cost of collectives on a cluster: measured, or by a bandwidth that was given."""

    def __init__(self, calibration: Calibration, cluster: Cluster, inter_bandwidth: float) -> None:
        self._lines = calibration.collectives
        self._alone = cluster.world_size == 1
        measured_hosts = calibration.world_size // calibration.local_world_size
        self._bandwidth = cluster.intra_bandwidth
        if cluster.num_hosts > 1:
            is_known = measured_hosts > 1 and calibration.collectives
            self._bandwidth = cluster.inter_bandwidth or (None if is_known else inter_bandwidth)

    def line(self, kind: Collective) -> Line:
        """Of a call, by the bytes of a rank's larger tensor."""
        measured = Line() if self._alone else self._lines.get(kind, Line())
        if self._bandwidth is None or self._alone:
            return measured
        return Line(fixed_ms=measured.fixed_ms, byte_ms=1000 / self._bandwidth)


class AdditiveEstimator(ShardEstimator):
    """Gives each shard its work's milliseconds; fixed parts belong to a plan as a whole."""

    def __init__(
        self,
        calibration: Calibration,
        cluster: Cluster,
        exchanges: Exchanges,
        bags: Mapping[str, int],
        communication: str,
    ) -> None:
        self._calibration = calibration
        self._cluster = cluster
        self._exchanges = exchanges
        self._bags = bags
        self._sent = NUMBER_BYTES[communication] / _POOLED_BYTES

    def estimate(self, sharding_options: list[ShardingOption], *_: object, **__: object) -> None:
        for option in sharding_options:
            for shard in option.shards:
                shard.perf = self._perf(option, shard)

    def load(self, option: ShardingOption, shard: Shard) -> Load:
        """The ids and bytes of a shard, when ids hit all row shards alike."""
        world = self._cluster.world_size
        rank_bags = self._bags.get(option.name, option.batch_size)
        batches = 1 if option.sharding_type == "data_parallel" else world
        ids = rank_bags * batches * sum(option.input_lengths)
        if option.sharding_type in _BY_ROWS:
            ids *= shard.size[0] / option.tensor.shape[0]
        bags = rank_bags * batches * len(option.input_lengths)
        row_bytes = shard.size[1] * option.tensor.element_size()
        return Load(
            ids=ids,
            bags=bags,
            row_bytes=row_bytes,
            table_bytes=shard.size[0] * row_bytes,
            pooled_bytes=bags * shard.size[1] * _POOLED_BYTES,
        )

    def _perf(self, option: ShardingOption, shard: Shard) -> Perf:
        load, known, line = self.load(option, shard), self._calibration, self._exchanges.line
        lookup = known.lookup.work_ms(ids=load.ids, size=load.size, table=load.table_bytes)
        update = known.update.work_ms(ids=load.ids, size=load.size, table=load.table_bytes)
        if option.sharding_type == "data_parallel":
            size = load.table_bytes
            return Perf(
                fwd_compute=lookup,
                fwd_comms=0.0,
                bwd_compute=update + known.dense_update.work_ms(size=size, table=size),
                bwd_comms=line("all_reduce").work_ms(size=size),
            )
        ids = line("all_to_all").work_ms(size=load.ids * _ID_BYTES)
        to, back = ways(option.sharding_type)
        sent = load.pooled_bytes * self._sent
        return Perf(
            fwd_compute=lookup,
            fwd_comms=line(to).work_ms(size=sent),
            bwd_compute=update,
            bwd_comms=line(back).work_ms(size=sent),
            input_dist_comms=ids,
        )


def ways(sharding_type: str) -> tuple[Collective, Collective]:
    """How pooled rows reach the ranks, and their gradients come back."""
    if sharding_type in _BY_ROWS:
        return "reduce_scatter", "all_gather"
    return "all_to_all", "all_to_all"


class AdditiveCosts(Costs):
    """The cost of a plan by a calibration."""

    counted = (OVERHEAD, INPUT, FORWARD, FORWARD_EXCHANGE, BACKWARD, BACKWARD_EXCHANGE)

    def __init__(self, world_size: int, calibration: Calibration, exchanges: Exchanges) -> None:
        super().__init__(world_size)
        self._calibration = calibration
        self._exchanges = exchanges

    def parts(self, shard: Shard) -> Parts:
        steps = self._calibration.steps
        scale = 1.0 if steps is None else steps.scale
        parts = {name: ms * scale for name, ms in super().parts(shard).items()}
        return {**parts, OVERHEAD: 0.0 if steps is None else steps.shard_ms}

    def loads(self, plan: Sequence[ShardingOption]) -> list[Parts]:
        steps = self._calibration.steps
        scale = 1.0 if steps is None else steps.scale
        kinds = sorted({option.sharding_type for option in plan})
        fixed = {name: ms * scale for name, ms in self._fixed(kinds).items()}
        if steps is not None:
            fixed[OVERHEAD] = steps.fixed_ms + sum(steps.group_ms.get(kind, 0.0) for kind in kinds)
        loads = super().loads(plan)
        counts = [0] * self.world_size
        for option in plan:
            for shard in option.shards:
                assert shard.rank is not None
                counts[shard.rank] += 1
        shard_ms = 0.0 if steps is None else steps.shard_ms
        return [
            {name: load.get(name, 0.0) * scale + ms for name, ms in fixed.items()}
            | {OVERHEAD: fixed[OVERHEAD] + count * shard_ms}
            for load, count in zip(loads, counts, strict=True)
        ]

    def step(self, loads: Sequence[Parts]) -> float:
        return sum(max(parts[name] for parts in loads) for name in self.counted)

    def _fixed(self, kinds: Sequence[str]) -> Parts:
        """What a sharding type costs by being used: a kernel each way, and the exchanges."""
        known, line = self._calibration, self._exchanges.line
        parts = dict.fromkeys(self.counted, 0.0)
        for kind in kinds:
            parts[FORWARD] += known.lookup.fixed_ms
            parts[BACKWARD] += known.update.fixed_ms
            if kind == "data_parallel":
                parts[BACKWARD] += known.dense_update.fixed_ms
                parts[BACKWARD_EXCHANGE] += line("all_reduce").fixed_ms
                continue
            to, back = ways(kind)
            parts[INPUT] += 2 * line("all_to_all").fixed_ms  # lengths, then ids
            parts[FORWARD_EXCHANGE] += line(to).fixed_ms
            parts[BACKWARD_EXCHANGE] += line(back).fixed_ms
        return parts
