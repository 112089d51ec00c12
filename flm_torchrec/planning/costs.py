"""What a plan costs: milliseconds of a step by rank and part, as TorchRec estimates it.

Example:
    costs = Costs(world_size=8)
    step = costs.step(costs.loads(plan))
"""

from collections.abc import Sequence

from torchrec.distributed.planner.types import PerfModel, Shard, ShardingOption

FORWARD, FORWARD_EXCHANGE = "forward", "forward_exchange"
BACKWARD, BACKWARD_EXCHANGE = "backward", "backward_exchange"
INPUT, PREFETCH, OVERHEAD = "input_exchange", "prefetch", "overhead"
_FIELDS = {
    INPUT: "input_dist_comms",
    PREFETCH: "prefetch_compute",
    FORWARD: "fwd_compute",
    FORWARD_EXCHANGE: "fwd_comms",
    BACKWARD: "bwd_compute",
    BACKWARD_EXCHANGE: "bwd_comms",
}
Parts = dict[str, float]


class Costs(PerfModel):
    """The cost of a plan by TorchRec's estimates: the time of the slowest rank.

    The exchange of ids overlaps with the step before. TorchRec leaves it out of a step's time;
    here it counts where it takes longer than what it overlaps with.
    """

    counted: tuple[str, ...] = (
        *(PREFETCH, FORWARD, FORWARD_EXCHANGE, BACKWARD, BACKWARD_EXCHANGE),
    )

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size

    def parts(self, shard: Shard) -> Parts:
        """Milliseconds of each part of a shard's work."""
        return {name: getattr(shard.perf, field) for name, field in _FIELDS.items()}

    def of_step(self, parts: Parts) -> Parts:
        """The parts that make up a step."""
        counted = {name: parts[name] for name in self.counted}
        overlapped = {INPUT: parts[INPUT]}
        return max(counted, overlapped, key=lambda of: sum(of.values()))

    def busy(self, parts: Parts) -> float:
        """Their milliseconds."""
        return sum(self.of_step(parts).values())

    def loads(self, plan: Sequence[ShardingOption]) -> list[Parts]:
        """Milliseconds of each part on each rank."""
        loads = [dict.fromkeys(_FIELDS, 0.0) for _ in range(self.world_size)]
        for option in plan:
            for shard in option.shards:
                assert shard.rank is not None
                load, perf = loads[shard.rank], shard.perf
                for name, field in _FIELDS.items():
                    load[name] += getattr(perf, field)
        return loads

    def step(self, loads: Sequence[Parts]) -> float:
        """Milliseconds of a step."""
        return max(self.busy(parts) for parts in loads)

    def rate(self, plan: list[ShardingOption]) -> float:
        return self.step(self.loads(plan))
