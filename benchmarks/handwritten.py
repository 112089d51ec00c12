"""A training step of TorchRec as its own examples write it, against the same model in our loop.

`torchrun --nproc_per_node 2 -m flm_benchmarks.handwritten --out ratios.json`, or alone. Both train
in one process, a block of steps in turn; a block took what its slowest rank took.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.optim.apply_optimizer_in_backward import _apply_optimizer_in_backward
from torch.nn import functional as F
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor
from torchrec.distributed import DistributedModelParallel, TrainPipelineSparseDist
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
from torchrec.optim.optimizers import in_backward_optimizer_filter
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from flm_torchrec.data.batch import TensorBatch
from flm_torchrec.errors import UserError, app
from flm_torchrec.files import atomic_file
from flm_torchrec.training.compat import topology
from flm_torchrec.training.loop import train
from flm_torchrec.training.optimizers import scale_dense_lr
from flm_torchrec.training.pipeline import train_pipeline
from flm_torchrec.training.runtime import Runtime, all_gather, barrier, start
from flm_torchrec.training.sharding import shard

TABLES, ROWS, DIM, POOLING = 8, 100_000, 64, 5
NUMBERS, HIDDEN, SAMPLES = 13, (256, 128), 1024
BLOCK, SKIPPED, DISTINCT_BATCHES = 10, 2, 16  # steps, pairs of blocks, batches
LR = 0.05
FEATURES = [f"f{place}" for place in range(TABLES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples(TensorBatch):
    """B samples of one rank."""

    numbers: Tensor  # (B, NUMBERS)
    features: KeyedJaggedTensor  # stride B
    clicked: Tensor  # (B,) 0 or 1


class ClickModel(nn.Module):
    """Pooled rows and numbers -> an MLP -> loss (), logits (B,)."""

    def __init__(self) -> None:
        super().__init__()
        self.ebc = EmbeddingBagCollection(
            device=torch.device("meta"),
            tables=[
                EmbeddingBagConfig(
                    name=f"t_{name}", embedding_dim=DIM, num_embeddings=ROWS, feature_names=[name]
                )
                for name in FEATURES
            ],
        )
        sizes = [TABLES * DIM + NUMBERS, *HIDDEN]
        layers = [
            layer
            for given, made in pairwise(sizes)
            for layer in (nn.Linear(given, made), nn.ReLU())
        ]
        self.dense = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))

    def forward(self, batch: Samples) -> tuple[Tensor, Tensor]:
        """-> loss (1,), logits (B,)"""
        pooled = self.ebc(batch.features)
        rows = torch.cat([batch.numbers, *(pooled[name] for name in FEATURES)], dim=1)
        logits = self.dense(rows).squeeze(1)
        return F.binary_cross_entropy_with_logits(logits, batch.clicked)[None], logits.detach()


def batches(runtime: Runtime) -> Iterator[Samples]:
    """The rank's share of a few batches of ids that follow Zipf's law, again and again."""
    each = SAMPLES // runtime.world_size
    made = []
    for number in range(DISTINCT_BATCHES):
        rng = np.random.default_rng((runtime.rank, number))
        ids = (rng.zipf(1.2, TABLES * each * POOLING) - 1) % ROWS
        made.append(
            Samples(
                numbers=torch.from_numpy(rng.random((each, NUMBERS), dtype=np.float32)),
                features=KeyedJaggedTensor(
                    FEATURES,
                    torch.from_numpy(ids),
                    lengths=torch.full((TABLES * each,), POOLING),
                ),
                clicked=torch.from_numpy(rng.integers(2, size=each).astype(np.float32)),
            )
        )
    return cycle(made)


def by_hand(runtime: Runtime) -> Callable[[], None]:
    """Takes BLOCK steps with nothing of ours: planner, DistributedModelParallel, pipeline, loop."""
    model = ClickModel()
    _apply_optimizer_in_backward(RowWiseAdagrad, model.ebc.parameters(), {"lr": LR, "eps": 1e-8})
    kinds = {f"t_{name}": ParameterConstraints(sharding_types=["table_wise"]) for name in FEATURES}
    planner = EmbeddingShardingPlanner(
        topology=topology(runtime.world_size, runtime.world_size, runtime.device.type),
        storage_reservation=FixedPercentageStorageReservation(0.15),
        constraints=kinds,
    )
    sharders = [cast(Any, EmbeddingBagCollectionSharder())]
    group = dist.group.WORLD
    assert group is not None
    plan = planner.collective_plan(model, sharders, group)
    dmp = DistributedModelParallel(model, device=runtime.device, plan=plan, sharders=sharders)
    dense = KeyedOptimizerWrapper(
        dict(in_backward_optimizer_filter(dmp.named_parameters())),
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
    )
    optimizer = CombinedOptimizer([dmp.fused_optimizer, dense])
    pipeline = TrainPipelineSparseDist(dmp, optimizer, runtime.device)
    source = batches(runtime)

    def block() -> None:
        for _ in range(BLOCK):
            pipeline.progress(source)

    return block


class Watch:
    """Seconds of a block, of the slowest rank."""

    def __init__(self) -> None:
        barrier()
        self.begin = perf_counter()

    def stop(self) -> float:
        """Called by all ranks."""
        mine = torch.tensor([perf_counter() - self.begin], dtype=torch.float64)
        return float(all_gather(mine).max())


def in_turn(runtime: Runtime, *, pairs: int) -> NDArray[np.float64]:
    """(pairs, 2) seconds of blocks, by hand and ours: the same model by `shard`,
    `train_pipeline` and one call of `train`, with the rate set after each step."""
    take_block = by_hand(runtime)
    dmp, optimizer = shard(
        ClickModel(),
        runtime.device,
        batch_size=SAMPLES // runtime.world_size,
        sparse_optimizer="rowwise_adagrad",
        sparse_lr=LR,
        dense_optimizer=lambda named: torch.optim.AdamW([p for _, p in named], lr=1e-3),
        default="table_wise",
    )
    seconds: list[tuple[float, float]] = []
    watch = Watch()

    def on_step(done: int, output: Any) -> None:
        nonlocal watch
        scale_dense_lr(optimizer, 1.0)
        if done % BLOCK == 0:
            own, watch = watch.stop(), Watch()
            take_block()
            seconds.append((watch.stop(), own))
            watch = Watch()

    train(
        train_pipeline(dmp, optimizer, runtime.device),
        batches(runtime),
        start=0,
        # One block more than is counted: at its end a loop draws nothing ahead any more.
        steps=BLOCK * (SKIPPED + pairs + 1),
        on_step=on_step,
        seed=0,
    )
    return np.array(seconds[SKIPPED:-1])


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Measure pairs of blocks; rank 0 prints the figures and writes them to `--out`."""
    parser = argparse.ArgumentParser(
        prog="python -m flm_benchmarks.handwritten", description=__doc__
    )
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    with start() as runtime:
        if SAMPLES % runtime.world_size:
            raise UserError(f"{SAMPLES} samples can't be shared by {runtime.world_size} ranks")
        theirs, own = in_turn(runtime, pairs=args.pairs).T
        is_first, world_size = runtime.rank == 0, runtime.world_size
    ratios = theirs / own
    quartiles = np.quantile(ratios, [0.25, 0.75]).tolist()
    found = {
        "world_size": world_size,
        "samples_per_s_by_hand": BLOCK * SAMPLES / float(np.median(theirs)),
        "samples_per_s_ours": BLOCK * SAMPLES / float(np.median(own)),
        "ratio": float(np.median(ratios)),
        "ratio_quartiles": quartiles,
        "pairs": args.pairs,
    }
    if is_first:
        print(json.dumps(found))
        if args.out is not None:
            with atomic_file(args.out) as file:
                file.write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
