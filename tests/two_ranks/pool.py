"""Gloo workers that live as long as the pytest session: importing torchrec takes seconds, so that
they are forked from one process that has."""

import multiprocessing
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).parents[2])


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def forking() -> ForkServerContext:
    """Makes processes that have imported torchrec when they start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flm_torchrec.training.sharding"])
    return context


def environment(rank: int, world_size: int, local_world_size: int, port: int) -> dict[str, str]:
    """What torchrun would tell a rank."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank % local_world_size),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(local_world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


class Ranks:
    """Runs functions on all ranks of a process group; a pool that went wrong is replaced.

    Every `local_world_size` ranks are on a machine of their own, as far as TorchRec knows.
    """

    def __init__(
        self, *, world_size: int = 2, local_world_size: int = 2, timeout_s: float = 120.0
    ) -> None:
        self._world_size, self._local_world_size = world_size, local_world_size
        self._timeout_s = timeout_s
        self._workers: list[tuple[BaseProcess, Connection]] = []

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """-> what `function(runtime, *args)` returned on each rank.

        `function` stands at the level of its module; arguments and results are pickled. Raises
        RuntimeError with the traceback of the first rank that failed, or stopped answering.
        """
        if not self._workers:
            self._start()
        for _, pipe in self._workers:
            with suppress(BrokenPipeError):  # of a worker that died: it has no reply either
                pipe.send((function, args))
        replies = self._replies()
        failed = [rank for rank, reply in enumerate(replies) if reply is None or not reply[0]]
        if not failed:
            return [reply[1] for reply in replies if reply is not None]
        self.stop()
        told = [rank for rank in failed if replies[rank] is not None]
        rank = told[0] if told else failed[0]
        reply = replies[rank]
        raise RuntimeError(f"rank {rank}: {reply[1] if reply else 'died, or took too long'}")

    def stop(self) -> None:
        for worker, pipe in self._workers:
            pipe.close()
            worker.terminate()
        for worker, _ in self._workers:
            worker.join()
        self._workers = []

    def _start(self) -> None:
        context, port = forking(), free_port()
        for rank in range(self._world_size):
            ours, theirs = context.Pipe()
            place = environment(rank, self._world_size, self._local_world_size, port)
            worker = context.Process(target=_work, args=(theirs, place), daemon=True)
            worker.start()
            theirs.close()
            self._workers.append((worker, ours))

    def _replies(self) -> list[tuple[bool, Any] | None]:
        """One a rank; None from a rank that died or doesn't answer (one that failed leaves the
        others waiting in a collective, so they get a few seconds only)."""
        replies: list[tuple[bool, Any] | None] = [None] * len(self._workers)
        pending = {pipe: rank for rank, (_, pipe) in enumerate(self._workers)}
        until = time.monotonic() + self._timeout_s
        while pending:
            for pipe in wait(list(pending), timeout=max(0.0, until - time.monotonic())):
                assert isinstance(pipe, Connection)
                rank = pending.pop(pipe)
                try:
                    replies[rank] = pipe.recv()
                except (EOFError, ConnectionResetError):
                    replies[rank] = None
                reply = replies[rank]
                if reply is None or not reply[0]:
                    until = min(until, time.monotonic() + 5.0)
            if time.monotonic() >= until:
                break
        return replies


def _work(pipe: Connection, place: dict[str, str]) -> None:
    sys.path.insert(0, ROOT)
    os.environ |= place
    from flm_torchrec.training.runtime import start

    with start() as runtime:
        while True:
            try:
                function, args = pipe.recv()
            except EOFError:
                return
            except Exception:  # the function's module doesn't import here
                pipe.send((False, traceback.format_exc()))
                continue
            try:
                pipe.send((True, function(runtime, *args)))
            except Exception:
                pipe.send((False, traceback.format_exc()))
