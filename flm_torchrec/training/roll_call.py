"""Which ranks of a job still answer, to name the one that the others wait for in vain."""

import threading
import time
from collections.abc import Callable

import torch.distributed as dist
from torch._C._distributed_c10d import Store

_BEAT = 0.5  # seconds
_GRACE = 3.0  # seconds in which a rank that is well beats, and one that waits fails too
_GONE = "the store of the job is gone, with rank 0 or with what started the job"


class RollCall:
    """Each rank tells the store that all share that it is alive, from a thread of its own.

    Costs nothing in a step: the ranks are asked only after a collective of this one has failed.
    `store` is a connection of its own: another call may block that of the process group.
    """

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        self._store, self._rank, self._world_size = store, rank, world_size
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """This rank is done."""
        self._over.set()
        self._thread.join(2 * _BEAT)  # a store that was stopped never answers

    def explain(self, error: BaseException) -> str | None:
        """Note that this rank has failed; -> the ranks to blame, where they are others."""
        is_waiting = _is_of_a_collective(error)
        own = "" if is_waiting else f"{type(error).__name__}: {error}".splitlines()[0]
        told: list[str | None] = []

        def ask() -> None:
            try:
                self._store.set(f"failed {self._rank}", own)
                told.append(self._blame() if is_waiting else None)
            except RuntimeError:  # all that a store raises
                told.append(_GONE)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(4 * _GRACE)
        return told[0] if told else _GONE

    def _blame(self) -> str | None:
        others = [rank for rank in range(self._world_size) if rank != self._rank]
        beats = {rank: self._beats(rank) for rank in others}
        _wait(lambda: all(self._is_there("failed", rank) for rank in others))
        failed = {
            rank: self._store.get(f"failed {rank}").decode()
            for rank in others
            if self._is_there("failed", rank)
        }
        missing = [rank for rank in others if rank not in failed]
        gone = [rank for rank in missing if self._beats(rank) == beats[rank]]
        told = [f"rank {rank} failed with {why}" for rank, why in failed.items() if why]
        told += [f"rank {rank} no longer answers: it was killed or stopped" for rank in gone]
        if not told:
            told = [f"rank {rank} is alive, but keeps the others waiting" for rank in missing]
        self._store.set(f"knows {self._rank}", "")
        if self._rank == 0:  # the store may go with it
            waiting = [rank for rank, why in failed.items() if not why]
            _wait(lambda: all(self._is_there("knows", rank) for rank in waiting))
        return "; ".join(told) or None

    def _is_there(self, what: str, rank: int) -> bool:
        return self._store.check([f"{what} {rank}"])

    def _beats(self, rank: int) -> int:
        return self._store.add(f"beat {rank}", 0)

    def _beat(self) -> None:
        while not self._over.wait(_BEAT):
            try:
                self._store.add(f"beat {self._rank}", 1)
            except RuntimeError:  # the store is gone
                return


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + _GRACE
    while not condition() and time.monotonic() < until:
        time.sleep(_BEAT / 5)


def _is_of_a_collective(error: BaseException) -> bool:
    """Gloo has no type of error of its own."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "/gloo/" in str(error)
    )
