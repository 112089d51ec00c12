"""TorchRec's training pipelines by the name that a benchmark calls them."""

import torch
from torch.optim import Optimizer
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.train_pipeline import TrainPipelineBase, TrainPipelineSparseDist
from torchrec.distributed.train_pipeline.train_pipelines import (
    PrefetchTrainPipelineSparseDist,
    TrainPipelineFusedSparseDist,
    TrainPipelineSemiSync,
)

from flm_torchrec.training.pipeline import train_pipeline


def make_pipeline(
    name: str, dmp: DistributedModelParallel, optimizer: Optimizer, device: torch.device
) -> TrainPipelineBase | TrainPipelineSparseDist:
    """The pipeline called `name`; those of a GPU raise where there is none."""
    match name:
        case "base":
            return TrainPipelineBase(dmp, optimizer, device)
        case "sparse_dist":
            return train_pipeline(dmp, optimizer, device)
        case "fused_sparse_dist":
            return TrainPipelineFusedSparseDist(dmp, optimizer, device)
        case "semi_sync":
            return TrainPipelineSemiSync(dmp, optimizer, device, start_batch=0)
        case "prefetch":
            return PrefetchTrainPipelineSparseDist(dmp, optimizer, device)
    raise AssertionError(name)
