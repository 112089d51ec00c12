"""Seconds of repeated steps on every rank: whole steps of a pipeline, and steps part by part.

A repeat starts after a barrier and took what its slowest rank took.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torchrec.distributed.types import NoWait, ShardedModule

from flm_torchrec.training.runtime import all_gather, barrier

PHASES = ("input_distribution", "forward", "output_distribution", "backward_update")


def finish(device: torch.device) -> None:
    """Wait for what the device was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def repeat(step: Callable[[], Any], device: torch.device, *, steps: int, warmup: int) -> Tensor:
    """-> (world_size, steps) seconds of each rank."""
    seconds = []
    for _ in range(warmup + steps):
        finish(device)
        barrier()
        begin = perf_counter()
        step()
        finish(device)
        seconds.append(perf_counter() - begin)
    return all_gather(torch.tensor([seconds[warmup:]], dtype=torch.float64))


class Stopwatch:
    """Adds up the seconds of phases that follow each other; each starts after a barrier."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._phase = PHASES[0]
        self._since = 0.0
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)

    def start(self, phase: str) -> None:
        """Begin a step, or a phase after `stop`."""
        finish(self._device)
        barrier()
        self._phase, self._since = phase, perf_counter()

    def stop(self) -> str:
        """End the phase; -> its name."""
        finish(self._device)
        self.seconds[self._phase] += perf_counter() - self._since
        return self._phase

    @contextmanager
    def within(self, phase: str) -> Iterator[None]:
        """A phase in the midst of another one, which then goes on."""
        outer = self.stop()
        self.start(phase)
        yield
        self.stop()
        self.start(outer)


@contextmanager
def watched(model: nn.Module, watch: Stopwatch) -> Iterator[None]:
    """While it lasts, the model's sharded modules wait for their exchanges and time them."""
    modules = [module for module in model.modules() if isinstance(module, ShardedModule)]
    for module in modules:
        _watch(module, watch)
    try:
        yield
    finally:
        for module in modules:
            del vars(module)["input_dist"], vars(module)["compute_and_output_dist"]


def _watch(module: ShardedModule, watch: Stopwatch) -> None:
    input_dist, compute, output_dist = module.input_dist, module.compute, module.output_dist

    def timed_input_dist(ctx: Any, *args: Any, **kwargs: Any) -> NoWait[NoWait[Any]]:
        with watch.within("input_distribution"):
            ready = input_dist(ctx, *args, **kwargs).wait().wait()
        return NoWait(NoWait(ready))

    def timed_output_dist(ctx: Any, features: Any) -> Any:
        rows = compute(ctx, features)
        with watch.within("output_distribution"):
            return output_dist(ctx, rows).wait()

    # On the instance: the pipeline, made later, finds those of the class again.
    vars(module).update(input_dist=timed_input_dist, compute_and_output_dist=timed_output_dist)


def repeat_phases(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Iterator[Any],
    device: torch.device,
    *,
    steps: int,
    warmup: int,
) -> Tensor:
    """-> (world_size, steps, phases) seconds of each rank, nothing overlapping."""
    rows = []
    for _ in range(warmup + steps):
        batch = next(batches).to(device)
        watch = Stopwatch(device)
        with watched(model, watch):
            optimizer.zero_grad()
            watch.start("forward")
            losses, _ = model(batch)
            watch.stop()
            watch.start("backward_update")
            losses.sum().backward()
            optimizer.step()
            watch.stop()
        rows.append([watch.seconds[phase] for phase in PHASES])
    return all_gather(torch.tensor([rows[warmup:]], dtype=torch.float64))


@dataclass(frozen=True, slots=True)
class Spread:
    """Quantiles of repeats."""

    median: float
    p10: float
    p90: float
    p99: float

    @classmethod
    def of(cls, values: Tensor | Sequence[float]) -> "Spread":
        """Of values (n,), at least one."""
        numbers = torch.as_tensor(values, dtype=torch.float64)
        places = torch.tensor([0.5, 0.1, 0.9, 0.99], dtype=torch.float64)
        return cls(*torch.quantile(numbers, places).tolist())


def slowest(seconds: Tensor) -> Tensor:
    """(world_size, steps, ...) -> (steps, ...) seconds of the slowest rank."""
    return seconds.amax(0)


def imbalance(seconds: Tensor) -> Spread:
    """(world_size, steps) -> in each repeat the slowest rank over the mean rank."""
    return Spread.of(seconds.amax(0) / seconds.mean(0))
