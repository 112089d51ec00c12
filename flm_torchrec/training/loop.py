"""The one training loop."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.optim.keyed import CombinedOptimizer

from flm_torchrec.training.pipeline import check_pipelined


def step_seed(seed: int, step: int, rank: int) -> int:
    """A seed for what is random inside a step (dropout)."""
    return ((seed * 1_000_003 + step) * 65_537 + rank) % 2**63


def train(
    pipeline: TrainPipelineSparseDist,
    batches: Iterator[Any],
    *,
    start: int,
    steps: int,
    on_step: Callable[[int, Any], None],
    seed: int,
) -> None:
    """Run the steps `start`..`steps - 1`, one batch each, calling `on_step(step, output)`.

    `batches` begins with the batch of `start` and holds as many as there are steps on every rank;
    the pipeline draws ahead of the step it runs. What a step draws at random depends on (seed,
    step, rank) alone, so that a resumed run needs no generator state.
    """
    rank = dist.get_rank()
    for step in range(start, steps):
        torch.manual_seed(step_seed(seed, step, rank))
        output = pipeline.progress(batches)
        if step == start:
            check_pipelined(pipeline)
        on_step(step, output)


@contextmanager
def paused(pipeline: TrainPipelineSparseDist) -> Iterator[None]:
    """Between two steps, give the model back its own forward: with batches in flight it would
    answer for the wrong one."""
    pipeline.detach()
    try:
        yield
    finally:
        pipeline.attach(pipeline._model)


def set_dense_lr(optimizer: CombinedOptimizer, factor: float) -> None:
    """Set the dense optimizer's learning rates to `factor` times what they were made with."""
    (dense,) = [keyed for name, keyed in optimizer.optimizers if name == "dense"]
    for group in dense.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
