import socket

import pytest
import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d
from torchrec.distributed import comm
from two_ranks.lost import lose
from two_ranks.pool import Ranks

from flm_torchrec.errors import UserError
from flm_torchrec.training.runtime import Runtime, all_gather, barrier, start


def gathered(runtime: Runtime) -> list[list[int]]:
    return all_gather(torch.tensor([[runtime.rank, 7], [runtime.rank, 8]])).tolist()


def test_all_gather_concatenates_in_the_order_of_ranks(ranks: Ranks) -> None:
    whole = [[0, 7], [0, 8], [1, 7], [1, 8]]
    assert ranks.run(gathered) == [whole, whole]


def test_one_process_gathers_nothing_and_waits_for_nobody() -> None:
    tensor = torch.arange(3)
    assert all_gather(tensor) is tensor
    barrier()
    with start():
        assert all_gather(tensor) is tensor
        barrier()


def test_a_process_without_torchrun_is_a_job_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    for _ in range(2):
        with start() as runtime:
            assert (runtime.rank, runtime.world_size) == (0, 1)
            assert dist.is_initialized()
        assert not dist.is_initialized()


def test_a_port_in_use_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", port)
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", "1")
        with pytest.raises(UserError, match=port), start():
            pass


def timeout_of(group: dist.ProcessGroup) -> float:
    return group._get_backend(torch.device("cpu")).options._timeout.total_seconds()


def test_groups_of_some_ranks_wait_as_long_as_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(comm, "_INTRA_PG", None)
    monkeypatch.setattr(comm, "_CROSS_PG", None)
    usual = distributed_c10d.default_pg_timeout
    with start(timeout=7):
        for group in (dist.new_group(), *comm.intra_and_cross_node_pg(backend="gloo")):
            assert isinstance(group, dist.ProcessGroup)
            assert timeout_of(group) == 7
    assert distributed_c10d.default_pg_timeout == usual


def gradient(runtime: Runtime) -> list[float]:
    """Of this rank's part of what all ranks have, where each weighs it by its own rank + 1."""
    own = torch.full((2,), float(runtime.rank), requires_grad=True)
    ((runtime.rank + 1) * all_gather(own) * torch.arange(1, 5)).sum().backward()
    assert own.grad is not None
    return own.grad.tolist()


def test_the_gradient_of_what_is_gathered_is_the_sum_over_ranks(ranks: Ranks) -> None:
    assert ranks.run(gradient) == [[3.0, 6.0], [9.0, 12.0]]


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("killed", "rank 1 no longer answers: it was killed or stopped"),
        ("stopped", "rank 1 no longer answers: it was killed or stopped"),
        ("sleeps", "rank 1 is alive, but keeps the others waiting"),
        ("fails", "rank 1 failed with ValueError: no such row"),
    ],
)
def test_a_rank_that_is_lost_is_named_by_the_others(how: str, told: str) -> None:
    assert lose(how, lost=1) == [
        f"RuntimeError: rank {rank} can't go on: {told}" for rank in (0, 2)
    ]


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_the_rank_that_keeps_the_store_is_named_too(how: str) -> None:
    for told in lose(how, lost=0):
        assert "the store of the job is gone, with rank 0" in told
