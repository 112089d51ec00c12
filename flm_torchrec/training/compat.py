"""The one place for what differs between TorchRec 1.6 (torch 2.11) and 1.8 (torch 2.13)."""

import torch
from torchrec.distributed.planner import Topology

try:
    from torchrec.distributed.planner.types import KernelConfig, TopologyFactory, TrainerConfig
except ImportError:  # TorchRec 1.6
    TopologyFactory = None


def make_topology(
    *, world_size: int, local_world_size: int, device: torch.device, memory: int
) -> Topology:
    """The cluster as the planner sees it; `memory` is a rank's, in bytes."""
    on_gpu = device.type == "cuda"
    if TopologyFactory is None:
        return Topology(
            world_size=world_size,
            local_world_size=local_world_size,
            compute_device=device.type,
            **({"hbm_cap": memory} if on_gpu else {"ddr_cap": memory}),
        )
    return TopologyFactory.create_topology(
        TrainerConfig(
            world_size=world_size,
            local_world_size=local_world_size,
            **({"hbm_cap_bytes": memory} if on_gpu else {"ddr_cap_bytes": memory}),
        ),
        kernel_config=KernelConfig(compute_device=device.type),
    )
