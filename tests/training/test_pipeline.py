import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from two_ranks.pool import Ranks
from two_ranks.toy import Tower, Toy, batches, make, run

from flm_torchrec.training import checkpoint
from flm_torchrec.training.loop import train
from flm_torchrec.training.pipeline import paused, train_pipeline
from flm_torchrec.training.runtime import Runtime


class Rebuilt(Tower):
    """Makes its KJT in forward: TorchRec runs it, but not in the pipeline."""

    def forward(self, features: KeyedJaggedTensor) -> Tensor:
        again = KeyedJaggedTensor(
            keys=["item"], values=features.values(), lengths=features.lengths()
        )
        return super().forward(again)


def test_a_table_that_is_not_pipelined_stops_training(alone: Runtime) -> None:
    with pytest.raises(
        RuntimeError,
        match=r"not pipelined: .*items.ebc; each .*\(train.allow_unpipelined: true to go on\)",
    ):
        run(alone, *make(alone, model=with_one_rebuilt()), steps=2)


def with_one_rebuilt() -> Toy:
    model = Toy()
    model.items = Rebuilt(["item"], dropout=0.0)
    return model


def losses_unpipelined(runtime: Runtime, folder: Path, rebuilt: bool) -> list[list[float]]:
    """From the same weights, with a table that is not pipelined or with all that are."""
    dmp, optimizer = make(runtime, "row_wise", model=with_one_rebuilt() if rebuilt else Toy())
    path = checkpoint.latest(folder)
    if path is None:
        checkpoint.save(folder, 0, dmp, optimizer, keep=1, meta={})
    else:
        checkpoint.load(path, dmp, optimizer)
    return run(runtime, dmp, optimizer, steps=5, allow_unpipelined=True)


def test_a_table_that_is_not_pipelined_is_told_once_where_it_is_allowed(
    alone: Runtime, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = losses_unpipelined(alone, tmp_path, False)
    assert "not pipelined" not in capfd.readouterr().out
    assert losses_unpipelined(alone, tmp_path, True) == expected
    told = [line for line in capfd.readouterr().out.splitlines() if "not pipelined" in line]
    assert len(told) == 1
    assert re.match(r"warning: not pipelined: .*items\.ebc; each EmbeddingBag", told[0])


def test_two_ranks_train_with_a_table_that_is_not_pipelined(ranks: Ranks, tmp_path: Path) -> None:
    expected, _ = ranks.run(losses_unpipelined, tmp_path, False)
    for losses in ranks.run(losses_unpipelined, tmp_path, True):
        assert losses == [pytest.approx(step) for step in expected]


def test_every_batch_is_run_once_and_in_order(alone: Runtime) -> None:
    seen: list[tuple[int, Tensor]] = []
    dmp, optimizer = make(alone)
    train(
        train_pipeline(dmp, optimizer, alone.device),
        batches(alone, 4, 9),
        start=4,
        steps=9,
        on_step=lambda step, output: seen.append((step, output[1])),
        seed=0,
    )
    assert [step for step, _ in seen] == [5, 6, 7, 8, 9]

    dmp, optimizer = make(alone)
    for (_, scores), batch in zip(seen, batches(alone, 4, 9), strict=True):
        optimizer.zero_grad()
        losses, (_, expected) = dmp(batch)
        losses.sum().backward()
        optimizer.step()
        assert torch.equal(scores, expected)


def train_with(alone: Runtime, *, evaluate: bool) -> tuple[list[float], dict[str, Tensor]]:
    dmp, optimizer = make(alone, dropout=0.3)
    pipeline = train_pipeline(dmp, optimizer, alone.device)
    (held_out,) = batches(alone, 100, 101)
    losses: list[float] = []

    def on_step(step: int, output: tuple[Tensor, Tensor]) -> None:
        losses.append(float(output[0].sum()))
        if evaluate and step % 2:
            check_evaluation(pipeline)

    def check_evaluation(pipeline: TrainPipelineSparseDist) -> None:
        with paused(pipeline) as model, torch.no_grad():
            twice = [model(held_out)[1][1] for _ in range(2)]
        assert torch.equal(*twice)
        assert dmp.training

    train(pipeline, batches(alone, 0, 8), start=0, steps=8, on_step=on_step, seed=1)
    return losses, {name: value.detach().clone() for name, value in dmp.named_parameters()}


def test_evaluating_between_steps_leaves_training_bit_equal(alone: Runtime) -> None:
    losses, parameters = train_with(alone, evaluate=False)
    same_losses, same_parameters = train_with(alone, evaluate=True)
    assert losses == same_losses
    for name, value in parameters.items():
        assert torch.equal(value, same_parameters[name]), name


class Bare(nn.Module):
    """A model without tables."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        score = self.linear(batch)
        return score.square().mean()[None], score.detach()


def test_a_model_without_tables_is_trained_and_paused(alone: Runtime) -> None:
    dmp, optimizer = make(alone, model=Bare())
    pipeline = train_pipeline(dmp, optimizer, alone.device)
    source = iter(torch.ones(4, 3, 2))
    scores = [pipeline.progress(source)]
    with paused(pipeline) as model:
        assert not model.training
        model(torch.zeros(1, 2))
    scores += [pipeline.progress(source) for _ in range(3)]
    assert dmp.training
    sizes = [score.abs().mean().item() for score in scores]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]
