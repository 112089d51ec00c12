"""Ranks of a job of their own, of which one is lost."""

import os
import signal
import sys
import time
from multiprocessing.connection import Connection

from two_ranks.pool import ROOT, environment, forking, free_port

WORLD_SIZE = 3
TIMEOUT = 3.0  # seconds


def lose(how: str, *, lost: int) -> list[str]:
    """What the other ranks of a job raise when the rank `lost` is lost, killed if need be."""
    context, port = forking(), free_port()
    workers, pipes = [], []
    for rank in range(WORLD_SIZE):
        ours, theirs = context.Pipe()
        place = environment(rank, WORLD_SIZE, WORLD_SIZE, port)
        worker = context.Process(target=_work, args=(theirs, place, how, lost), daemon=True)
        worker.start()
        theirs.close()
        workers.append(worker)
        pipes.append(ours)
    try:
        others = [pipe for rank, pipe in enumerate(pipes) if rank != lost]
        assert all(pipe.poll(60.0) for pipe in others)
        return [pipe.recv() for pipe in others]
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


def _work(pipe: Connection, place: dict[str, str], how: str, lost: int) -> None:
    sys.path.insert(0, ROOT)
    os.environ |= place
    import torch

    from flm_torchrec.training.runtime import all_gather, start

    try:
        with start(timeout=TIMEOUT) as runtime:
            all_gather(torch.ones(1))
            if runtime.rank == lost:
                _leave(how)
            all_gather(torch.ones(1))
            all_gather(torch.ones(1))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def _leave(how: str) -> None:
    if how == "fails":
        raise ValueError("no such row")
    if how == "sleeps":
        time.sleep(60.0)
    os.kill(os.getpid(), {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}[how])
