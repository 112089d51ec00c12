"""The pipeline that overlaps the exchange of the next batch's ids with this batch's step."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.train_pipeline import TrainPipelineBase, TrainPipelineSparseDist
from torchrec.distributed.types import ShardedModule

Pipeline = TrainPipelineSparseDist | TrainPipelineBase


def train_pipeline(
    dmp: DistributedModelParallel,
    optimizer: Optimizer,
    device: torch.device,
    *,
    allow_unpipelined: bool = False,
) -> Pipeline:
    """A pipeline over a model of batch -> (losses, output) that fails on its first step, with a
    RuntimeError naming the modules, when one of the model's tables is left out of the overlap.

    With `allow_unpipelined` rank 0 prints the same instead, once, and the step waits for the ids of
    those tables. A model without tables has no ids to exchange: its pipeline copies batches ahead
    only.
    """
    if not any(isinstance(module, ShardedModule) for module in dmp.module.modules()):
        return TrainPipelineBase(dmp, optimizer, device)
    pipeline: TrainPipelineSparseDist

    def first_forward(batch: Any) -> tuple[Tensor, Any]:
        pipelined = {id(module) for module in pipeline._pipelined_modules}
        missing = [
            name
            for name, module in dmp.module.named_modules()
            if isinstance(module, ShardedModule) and id(module) not in pipelined
        ]
        if missing:
            told = (
                f"not pipelined: {', '.join(missing)}; each EmbeddingBagCollection must be called "
                "once a step, on a KeyedJaggedTensor that is an attribute of the batch"
            )
            if not allow_unpipelined:
                raise RuntimeError(f"{told} (train.allow_unpipelined: true to go on)")
            if dist.get_rank() == 0:
                print(f"warning: {told}; their ids are exchanged within the step", flush=True)
        pipeline._model_fwd = dmp
        return dmp(batch)

    pipeline = TrainPipelineSparseDist(dmp, optimizer, device, custom_model_fwd=first_forward)
    return pipeline


@contextmanager
def paused(pipeline: Pipeline) -> Iterator[nn.Module]:
    """Lend the model, in evaluation mode, between two steps; training goes on as if it had not."""
    is_ahead = isinstance(pipeline, TrainPipelineSparseDist)
    model = pipeline.detach() if is_ahead else pipeline._model
    training = model.training
    model.eval()
    try:
        yield model
    finally:
        model.train(training)
        if is_ahead:
            pipeline.attach(model)
