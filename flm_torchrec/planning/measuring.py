"""Milliseconds of a call, of the slowest rank.

Example:
    clock = Clock(device, repeats=20)
    milliseconds = clock.time(lambda: target.copy_(source))
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

_WARMUP = 5


@dataclass(frozen=True, slots=True)
class Clock:
    """Times calls that all ranks make together."""

    device: torch.device
    repeats: int = 20

    def time(
        self, call: Callable[[], object], *, before: Callable[[], object] | None = None
    ) -> float:
        """The median over repeats of the slowest rank's milliseconds; `before` isn't timed."""
        taken = []
        for number in range(_WARMUP + self.repeats):
            if before is not None:
                before()
            self._wait()
            began = time.perf_counter()
            call()
            self._settle()
            if number >= _WARMUP:
                taken.append((time.perf_counter() - began) * 1000)
        if dist.get_world_size() > 1:
            slowest = torch.tensor(taken, device=self.device)
            dist.all_reduce(slowest, dist.ReduceOp.MAX)
            taken = slowest.tolist()
        return statistics.median(taken)

    def _settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _wait(self) -> None:
        self._settle()
        if dist.get_world_size() > 1:
            dist.barrier()
