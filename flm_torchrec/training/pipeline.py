"""TorchRec's pipeline: while a step computes, the next batch's ids are already on their way."""

import torch
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.distributed.types import ShardedModule
from torchrec.optim.keyed import KeyedOptimizer


def train_pipeline(
    dmp: DistributedModelParallel, optimizer: KeyedOptimizer, device: torch.device
) -> TrainPipelineSparseDist:
    """A pipeline that runs every batch it draws."""
    return TrainPipelineSparseDist(dmp, optimizer, device, execute_all_batches=True)


def check_pipelined(pipeline: TrainPipelineSparseDist) -> None:
    """Raise RuntimeError unless every sharded module of the model runs in the pipeline.

    Call it after the first step: before, no module is. A module whose KJT isn't a plain attribute
    of the batch isn't pipelined, and TorchRec says so in one warning only.
    """
    pipelined = {id(module) for module in pipeline._pipelined_modules}
    missing = [
        name
        for name, module in pipeline._model.named_modules()
        if isinstance(module, ShardedModule) and id(module) not in pipelined
    ]
    if missing:
        raise RuntimeError(
            f"not pipelined: {', '.join(missing)}; its input must be a KeyedJaggedTensor that is "
            "a plain attribute of the batch, not one that is built or changed in forward"
        )
