"""The processes of a run: who this one is, on which device, and how ranks exchange tensors.

with start() as runtime:
    everybody = all_gather(torch.tensor([runtime.rank]))
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch._C._distributed_c10d import HashStore, PrefixStore, TCPStore
from torch.distributed.rendezvous import rendezvous

from flm_torchrec.errors import UserError
from flm_torchrec.training.compat import group_timeout, silence_others
from flm_torchrec.training.roll_call import RollCall

TIMEOUT = 1800  # seconds; torch's own for gloo


@dataclass(frozen=True, slots=True)
class Runtime:
    """This process among those of the run."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device

    def share(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """This rank's part of `rows` (n,), as long as every other's: gathered and cut to n the
        parts are the rows. The first of them fill up."""
        size = -(-len(rows) // self.world_size)
        padded = np.resize(rows, size * self.world_size)
        return padded[self.rank * size : (self.rank + 1) * size]


@contextmanager
def start(*, timeout: float = TIMEOUT) -> Iterator[Runtime]:
    """Join the process group that torchrun's environment describes, or be a group of one.

    A rank that waits for another for more than `timeout` seconds, or loses it, ends in a
    RuntimeError that names it; that holds for groups of some of the ranks too.
    Gloo on CPU, NCCL on GPU. Under torchrun the threads of a rank are its share of the cores that
    the job may use; alone they are torch's own choice, which OMP_NUM_THREADS overrules.
    """
    silence_others()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local_world_size > torch.cuda.device_count():
            raise UserError(
                f"{local_world_size} processes on this machine, which has "
                f"{torch.cuda.device_count()} GPUs; allowed: one process a GPU (-j 1x"
                f'{torch.cuda.device_count()}), or CUDA_VISIBLE_DEVICES="" to use the CPU'
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    threads = torch.get_num_threads()
    if "RANK" in os.environ:  # where torchrun has set OMP_NUM_THREADS to 1
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_world_size))
    limit = timedelta(seconds=timeout)
    roll_call = _join("nccl" if device.type == "cuda" else "gloo", limit)
    try:
        with group_timeout(limit):
            yield Runtime(dist.get_rank(), local_rank, dist.get_world_size(), device)
    except Exception as error:
        if roll_call is not None and (told := roll_call.explain(error)) is not None:
            raise RuntimeError(f"rank {dist.get_rank()} can't go on: {told}") from error
        raise
    finally:
        if roll_call is not None:
            roll_call.stop()
        dist.destroy_process_group()
        torch.set_num_threads(threads)


def _join(backend: str, timeout: timedelta) -> RollCall | None:
    if "RANK" not in os.environ:
        # TorchRec asks the environment, and warns where it finds nothing.
        os.environ.setdefault("LOCAL_WORLD_SIZE", "1")
        # A store in memory takes no port, so any number of such runs live side by side.
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        return None
    try:
        store, rank, size = next(rendezvous("env://", timeout=timeout))
        store = PrefixStore(_attempt(size), store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error) and "address already in use" not in str(error).lower():
            raise
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise UserError(
            f"MASTER_PORT: {address} is in use by another program; choose a free port, "
            "or 0 with torchrun's --rdzv-endpoint"
        ) from error
    if size == 1:
        return None
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    own = TCPStore(*address, is_master=False, timeout=timedelta(seconds=10))
    return RollCall(PrefixStore(f"{_attempt(size)} roll call", own), rank, size)


def _attempt(world_size: int) -> str:
    """Keeps ranks that were restarted from the addresses of those before them: the store of an
    agent outlives its ranks. Several agents don't count alike, so there it has to be another."""
    has_one_agent = os.environ.get("LOCAL_WORLD_SIZE") == str(world_size)
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if has_one_agent else "0"


def all_gather(tensor: Tensor) -> Tensor:
    """Concatenate `tensor` (n, ...) over ranks in order: (world_size * n, ...).

    Every rank gives the same shape. The gradient of a rank's part is the sum of what all ranks ask
    of it, so that a loss that each rank has of all parts is averaged over the ranks as any other.
    In one process, started or not, it is the identity.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return tensor
    return _AllGather.apply(tensor)


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        on_backend = _on_backend(tensor.detach())
        gathered = [torch.empty_like(on_backend) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, on_backend)
        return torch.cat(gathered).to(tensor.device)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (gradient,) = grad_outputs
        total = _on_backend(gradient.clone())
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()].to(gradient.device)


def _on_backend(tensor: Tensor) -> Tensor:
    tensor = tensor.contiguous()
    return tensor.cuda() if dist.get_backend() == "nccl" else tensor


def barrier() -> None:
    """Wait for every rank."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()
