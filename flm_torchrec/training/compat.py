"""What differs between the versions of TorchRec that are supported (1.6 and 1.8)."""

import logging
import warnings

from torchrec.distributed.planner import Topology
from torchrec.distributed.planner import types as planner_types

# Said by TorchRec's own calls into torch and into itself; no user can act on them.
OTHERS_WARNINGS = (
    "Please use DTensor instead and we are deprecating ShardedTensor",
    "`broadcast_buffers` is deprecated",
    "`torch.distributed.reduce_scatter_tensor` is deprecated",
    "`torch.distributed.all_gather_into_tensor` is deprecated",
    # Of data-parallel tables; their gradients are right (the tests compare them with fused ones).
    "fbgemm::dense_embedding_codegen_lookup_function: an autograd kernel was not registered",
)

# Notes on process groups, on cache settings that a table doesn't have, and on tracing.
OTHERS_LOGGERS = (
    "torchrec.distributed.comm",
    "torchrec.distributed.utils",
    "torch.fx._symbolic_trace",
)


def silence_others() -> None:
    """Keep a job's output to what concerns its user."""
    for message in OTHERS_WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=Warning)
    for name in OTHERS_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)


def topology(world_size: int, local_world_size: int, device_type: str) -> Topology:
    """The machines a planner plans for; 1.8 wants them from a factory that 1.6 does not have."""
    if not hasattr(planner_types, "TopologyFactory"):
        return Topology(
            world_size=world_size, local_world_size=local_world_size, compute_device=device_type
        )
    return planner_types.TopologyFactory.create_topology(
        planner_types.TrainerConfig(world_size=world_size, local_world_size=local_world_size),
        kernel_config=planner_types.KernelConfig(compute_device=device_type),
    )
