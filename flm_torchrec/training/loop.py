"""The one training loop."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torchrec.distributed.train_pipeline import TrainPipeline


def train(
    pipeline: TrainPipeline[Any, Any],
    batches: Iterator[Any],
    *,
    start: int,
    steps: int,
    on_step: Callable[[int, Any], None],
    seed: int,
) -> None:
    """Take the steps `start` + 1 to `steps`, the next batch of `batches` each.

    After each of them `on_step` gets the number of steps done and the model's output; it is the
    place to log, to save, to evaluate (in `paused`) and to set the next step's learning rate.
    Every rank must have the same number of batches. The generator of torch is seeded by `seed`,
    the step and the rank, so a resumed run draws the dropout of one that never stopped.
    """
    # Pipelines read ahead: the slice keeps them from drawing batches that nobody consumes.
    source = islice(batches, steps - start)
    for step in range(start + 1, steps + 1):
        torch.manual_seed(_step_seed(seed, step, dist.get_rank()))
        try:
            output = pipeline.progress(source)
        except StopIteration:
            raise RuntimeError(f"the batches ended before step {step} of {steps}") from None
        on_step(step, output)


def _step_seed(seed: int, step: int, rank: int) -> int:
    return hash((seed, step, rank)) % 2**63
