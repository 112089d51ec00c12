"""A small model of every kind of part that training meets, and batches that any world can split."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.modules.embedding_configs import DataType, EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.optim.keyed import CombinedOptimizer
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from flm_torchrec.data.batch import TensorBatch
from flm_torchrec.training.loop import train
from flm_torchrec.training.pipeline import train_pipeline
from flm_torchrec.training.placing import Planner
from flm_torchrec.training.runtime import Runtime, all_gather
from flm_torchrec.training.sharding import shard

ROWS = {"user": 40, "age": 8, "item": 30}
DIM = 8
WIDE = 256  # numbers in a row that TorchRec splits into two column shards
EDGES = 16  # of a step, over all ranks
SPARSE_LR = 0.05
DENSE_LR = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class Side(TensorBatch):
    features: KeyedJaggedTensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyBatch(TensorBatch):
    users: Side
    items: Side
    labels: Tensor  # (E,) 0 or 1
    weight: Tensor  # (E,) over all ranks they add up to the world size; 0 = padding


class Tower(nn.Module):
    """Tables, then a dense part with dropout."""

    def __init__(
        self,
        features: list[str],
        *,
        dropout: float,
        dim: int = DIM,
        data_type: DataType = DataType.FP32,
    ) -> None:
        super().__init__()
        tables = [
            EmbeddingBagConfig(
                name=name,
                embedding_dim=dim,
                num_embeddings=ROWS[name],
                feature_names=[name],
                data_type=data_type,
            )
            for name in features
        ]
        self.features = features
        self.ebc = EmbeddingBagCollection(tables=tables, device=torch.device("meta"))
        self.dense = nn.Sequential(nn.Linear(dim * len(features), DIM), nn.Dropout(dropout))

    def forward(self, features: KeyedJaggedTensor) -> Tensor:
        pooled = self.ebc(features)
        return self.dense(torch.cat([pooled[name] for name in self.features], dim=1))


class Losses(nn.Module):
    """No table inside, so that it is a leaf for the pipeline: free Python."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))
        self.register_buffer("scale", torch.tensor([1.0, 0.5]))

    def forward(self, score: Tensor, batch: ToyBatch) -> Tensor:
        losses = []
        for loss in (
            F.binary_cross_entropy_with_logits(score + self.bias, batch.labels, reduction="none"),
            (score - batch.labels) ** 2,
        ):
            losses.append((batch.weight * loss).sum())
        return torch.stack(losses) * self.scale


class Toy(nn.Module):
    """-> losses (2,), and the output: (losses (2,), scores (E,))."""

    def __init__(
        self, *, dropout: float = 0.0, dim: int = DIM, data_type: DataType = DataType.FP32
    ) -> None:
        super().__init__()
        self.users = Tower(["user", "age"], dropout=dropout, dim=dim, data_type=data_type)
        self.items = Tower(["item"], dropout=dropout, dim=dim, data_type=data_type)
        self.losses = Losses()

    def forward(self, batch: ToyBatch) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        users = self.users(batch.users.features)
        items = self.items(batch.items.features)
        score = (users * items).sum(dim=1)
        losses = self.losses(score, batch)
        return losses, (losses.detach(), score.detach())


def bags(names: list[str], generator: torch.Generator, ours: slice) -> KeyedJaggedTensor:
    """EDGES random bags of 0-3 rows for each feature, of which this rank keeps `ours`."""
    lengths, values = [], []
    for name in names:
        length = torch.randint(0, 4, (EDGES,), generator=generator)
        value = torch.randint(0, ROWS[name], (int(length.sum()),), generator=generator)
        lengths.append(length[ours])
        values += list(value.split(length.tolist()))[ours]
    return KeyedJaggedTensor.from_lengths_sync(names, torch.cat(values), torch.cat(lengths))


def batch_of(step: int, rank: int, world_size: int) -> ToyBatch:
    """The rank's part of the global batch of `step`; some edges are padding, on rank 0 more."""
    generator = torch.Generator().manual_seed(step)
    each = EDGES // world_size
    ours = slice(rank * each, (rank + 1) * each)
    valid = torch.ones(EDGES)
    valid[[1, 3, 4, 12]] = 0.0
    return ToyBatch(
        users=Side(features=bags(["user", "age"], generator, ours)),
        items=Side(features=bags(["item"], generator, ours)),
        labels=torch.randint(0, 2, (EDGES,), generator=generator).float()[ours],
        weight=(valid * world_size / valid.sum())[ours],
    )


def batches(runtime: Runtime, start: int, steps: int) -> Iterator[ToyBatch]:
    for step in range(start, steps):
        yield batch_of(step, runtime.rank, runtime.world_size)


def two_groups(named: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    """AdamW that decays matrices only."""
    return torch.optim.AdamW(
        [
            {"params": [p for _, p in named if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=DENSE_LR,
    )


def make(
    runtime: Runtime,
    default: str = "table_wise",
    *,
    model: nn.Module | None = None,
    dropout: float = 0.0,
    sparse_optimizer: str = "rowwise_adagrad",
    constraints: Mapping[str, str] | None = None,
    dim: int = DIM,
    data_type: DataType = DataType.FP32,
    communication: str = "fp32",
    planner: Planner | None = None,
) -> tuple[DistributedModelParallel, CombinedOptimizer]:
    torch.manual_seed(7)
    return shard(
        Toy(dropout=dropout, dim=dim, data_type=data_type) if model is None else model,
        runtime.device,
        batch_size=EDGES,
        sparse_optimizer=sparse_optimizer,
        sparse_lr=SPARSE_LR,
        dense_optimizer=two_groups,
        constraints=constraints,
        default=default,
        communication=communication,
        planner=planner,
    )


def run(
    runtime: Runtime,
    dmp: DistributedModelParallel,
    optimizer: CombinedOptimizer,
    *,
    start: int = 0,
    steps: int,
    allow_unpipelined: bool = False,
) -> list[list[float]]:
    """Train; -> the losses (2,) of each step, averaged over the ranks."""
    losses: list[Tensor] = []
    train(
        train_pipeline(dmp, optimizer, runtime.device, allow_unpipelined=allow_unpipelined),
        batches(runtime, start, steps),
        start=start,
        steps=steps,
        on_step=lambda step, output: losses.append(output[0]),
        seed=3,
    )
    mine = torch.stack(losses)[None]  # (1, steps, 2)
    return all_gather(mine).mean(0).tolist()
