"""Ranks that agree on what came of a piece of work, also where one of them failed in the middle.

A rank that fails leaves its connections. That ends whatever exchange the others wait in, so they
leave too, and all join again. On NCCL the others notice only by its own time limit.

Example:
    outcome = Together(runtime).attempt(lambda: measure(...))
    if isinstance(outcome, Failure): print(outcome.told)
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from time import time
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore
from torchrec.distributed import comm

from flm_torchrec.training.runtime import Runtime, barrier

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """The first rank that failed, and what it told."""

    rank: int
    told: str


class Together:
    """The ranks of a started job; all of them must make the same calls."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._store = dist.distributed_c10d._get_default_store()
        self._times = 0

    def attempt(self, function: Callable[[], T]) -> T | Failure:
        """What `function` returned here, or on every rank the failure of the first that failed."""
        value, failed = None, None
        try:
            value = function()
            barrier()  # raises where another rank has left
        except Exception as error:
            failed = (time(), self._runtime.rank, _told(error))
        # Outside of the handler: the error held the tables of the attempt.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if failed is None:
            return cast(T, value)
        everybody = [failed] * self._runtime.world_size
        if self._runtime.world_size > 1:
            self._join_again()
            dist.all_gather_object(everybody, failed)
        _, rank, told = min(everybody)
        return Failure(rank, told)

    def _join_again(self) -> None:
        backend = dist.get_backend()
        dist.destroy_process_group()
        # TorchRec keeps groups of its own for table-row-wise and grid.
        comm._INTRA_PG = comm._CROSS_PG = None
        self._times += 1
        dist.init_process_group(
            backend,
            # Addresses of the connections left are no longer of use.
            store=PrefixStore(f"again{self._times}", self._store),
            rank=self._runtime.rank,
            world_size=self._runtime.world_size,
        )


def _told(error: Exception) -> str:
    text = str(error).strip() or "no message"
    return f"{type(error).__name__}: {text.splitlines()[0]}"
