"""What differs between the versions of TorchRec that are supported (1.6 and 1.8), and what neither
it nor torch lets its callers say."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from torch.distributed import distributed_c10d
from torchrec.distributed.planner import Topology
from torchrec.distributed.planner import types as planner_types
from torchrec.distributed.planner.constants import (
    BWD_COMPUTE_MULTIPLIER,
    CROSS_NODE_BANDWIDTH,
    DDR_MEM_BW,
    HBM_MEM_BW,
    INTRA_NODE_BANDWIDTH,
)

# Said by TorchRec's own calls into torch and into itself; no user can act on them.
OTHERS_WARNINGS = (
    "Please use DTensor instead and we are deprecating ShardedTensor",
    "`broadcast_buffers` is deprecated",
    "`torch.distributed.reduce_scatter_tensor` is deprecated",
    "`torch.distributed.all_gather_into_tensor` is deprecated",
    # Of data-parallel tables; their gradients are right (the tests compare them with fused ones).
    "fbgemm::dense_embedding_codegen_lookup_function: an autograd kernel was not registered",
)

# Notes on process groups, on cache settings that a table doesn't have, on tracing, and on modules
# that aren't pipelined, which `train_pipeline` tells by itself.
OTHERS_LOGGERS = (
    "torchrec.distributed.comm",
    "torchrec.distributed.utils",
    "torch.fx._symbolic_trace",
    "torchrec.distributed.train_pipeline.utils",
)


def silence_others() -> None:
    """Keep a job's output to what concerns its user."""
    for message in OTHERS_WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=Warning)
    for name in OTHERS_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def group_timeout(timeout: timedelta) -> Iterator[None]:
    """Let ranks wait so long in groups that others make meanwhile, such as TorchRec's of the ranks
    of a machine: they take torch's default, which can be had by its name alone."""
    names = ("default_pg_timeout", "default_pg_nccl_timeout")
    usual = {name: getattr(distributed_c10d, name) for name in names}
    try:
        for name in names:
            setattr(distributed_c10d, name, timeout)
        yield
    finally:
        for name, value in usual.items():
            setattr(distributed_c10d, name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What is known of the machines of a plan; None leaves TorchRec's own figure."""

    hbm: int | None = None  # bytes a rank
    host_memory: int | None = None  # bytes a rank
    hbm_bandwidth: float | None = None  # bytes/s of lookups
    host_bandwidth: float | None = None  # bytes/s of lookups
    intra_bandwidth: float | None = None  # bytes/s a rank within a host
    inter_bandwidth: float | None = None  # bytes/s a rank between hosts
    backward_multiplier: float | None = None  # time of a lookup's backward by that of its forward


def topology(
    world_size: int, local_world_size: int, device_type: str, hardware: Hardware | None = None
) -> Topology:
    """The machines a planner plans for; 1.8 wants them from a factory that 1.6 does not have."""
    known = hardware or Hardware()

    def per_ms(value: float | None, usual: float) -> float:
        """In bytes a millisecond, as TorchRec counts."""
        return usual if value is None else value / 1000

    hbm, host = per_ms(known.hbm_bandwidth, HBM_MEM_BW), per_ms(known.host_bandwidth, DDR_MEM_BW)
    intra = per_ms(known.intra_bandwidth, INTRA_NODE_BANDWIDTH)
    inter = per_ms(known.inter_bandwidth, CROSS_NODE_BANDWIDTH)
    multiplier = known.backward_multiplier or BWD_COMPUTE_MULTIPLIER
    if not hasattr(planner_types, "TopologyFactory"):
        return Topology(
            world_size=world_size,
            local_world_size=local_world_size,
            compute_device=device_type,
            hbm_cap=known.hbm,
            ddr_cap=known.host_memory,
            hbm_mem_bw=hbm,
            ddr_mem_bw=host,
            intra_host_bw=intra,
            inter_host_bw=inter,
            bwd_compute_multiplier=multiplier,
        )
    return planner_types.TopologyFactory.create_topology(
        planner_types.TrainerConfig(
            world_size=world_size,
            local_world_size=local_world_size,
            is_dry_run=hardware is not None,
            dry_run_hbm_bytes=known.hbm,
            dry_run_ddr_bytes=known.host_memory,
        ),
        hardware_config=planner_types.HardwareConfig(
            hbm_mem_bw=hbm, ddr_mem_bw=host, intra_host_bw=intra, inter_host_bw=inter
        ),
        kernel_config=planner_types.KernelConfig(
            compute_device=device_type,
            bwd_compute_multiplier=multiplier,
            use_hardware_based_bandwidth=hardware is not None,
        ),
    )
