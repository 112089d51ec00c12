"""The ranks of a job: started by torchrun, or alone in this process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from flm_torchrec.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    device: torch.device

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.world_size > 1:
            dist.barrier()

    def all_gather(self, tensor: Tensor) -> Tensor:
        """(n, ...) on every rank -> (world_size * n, ...) in rank order; `tensor` alone."""
        if self.world_size == 1:
            return tensor
        # Collectives want the device of the backend.
        sent = tensor.to(self.device).contiguous()
        parts = [torch.empty_like(sent) for _ in range(self.world_size)]
        dist.all_gather(parts, sent)
        return torch.cat(parts).to(tensor.device)


@contextmanager
def start(*, timeout_s: float = 600.0) -> Iterator[Runtime]:
    """Join the job that torchrun's environment describes, or be a job of one process.

    Uses NCCL and one GPU a process where there are GPUs, else gloo, and shares the cores of the
    machine among its processes. Raises UserError when the port of the job is taken.
    """
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_world_size))
    _join("nccl" if on_gpu else "gloo", timedelta(seconds=timeout_s))
    try:
        yield Runtime(
            rank=dist.get_rank(),
            local_rank=local_rank,
            world_size=dist.get_world_size(),
            local_world_size=local_world_size,
            device=device,
        )
    finally:
        dist.destroy_process_group()
        torch.set_num_threads(threads)


def _join(backend: str, timeout: timedelta) -> None:
    if "RANK" not in os.environ:
        # A store in memory: a job of one process needs no port.
        store = dist.HashStore()
        dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=timeout)
        return
    try:
        dist.init_process_group(backend, timeout=timeout)
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error) and "address already in use" not in str(error):
            raise
        port = os.environ.get("MASTER_PORT")
        raise UserError(
            f"MASTER_PORT: {port} is in use on this machine; allowed: a free port, or none at all "
            "when torchrun starts the job (--standalone, or --rdzv-endpoint HOST:0)"
        ) from error
