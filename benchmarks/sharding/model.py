"""What the sharding benchmark trains: a few equal tables under one linear layer."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchrec.modules.embedding_configs import EmbeddingBagConfig
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from flm_torchrec.data.batch import TensorBatch

IDS_PER_BAG = 10
DISTINCT_BATCHES = 8
FLOAT = 4  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The size of a step."""

    tables: int
    rows: int
    dim: int
    batch_size: int  # samples of a step, over all ranks

    @property
    def features(self) -> list[str]:
        """One feature a table, of the same name."""
        return [f"t{place}" for place in range(self.tables)]

    def ids(self, number: int) -> Tensor:
        """-> (tables, batch_size, IDS_PER_BAG) uniform rows, the same on every rank."""
        generator = torch.Generator().manual_seed(number)
        shape = (self.tables, self.batch_size, IDS_PER_BAG)
        return torch.randint(self.rows, shape, generator=generator)

    def table_bytes(self) -> float:
        """Bytes of table rows that a step has to move, whatever the sharding; mean of the batches.

        Forward reads a row an id. The update reads and writes each distinct row of the step once,
        and its one number of optimizer state.
        """
        lookups = self.tables * self.batch_size * IDS_PER_BAG
        distinct = [
            sum(len(of_table.unique()) for of_table in self.ids(number))
            for number in range(DISTINCT_BATCHES)
        ]
        updated = sum(distinct) / DISTINCT_BATCHES
        return FLOAT * (lookups * self.dim + updated * 2 * (self.dim + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleBatch(TensorBatch):
    """B samples of one rank."""

    features: KeyedJaggedTensor  # stride B
    labels: Tensor  # (B,) 0 or 1


class PooledModel(nn.Module):
    """Pooled rows -> one linear layer -> losses (1,), scores (B,)."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.features = work.features
        self.ebc = EmbeddingBagCollection(
            device=torch.device("meta"),
            tables=[
                EmbeddingBagConfig(
                    name=name,
                    embedding_dim=work.dim,
                    num_embeddings=work.rows,
                    feature_names=[name],
                )
                for name in work.features
            ],
        )
        self.score = nn.Linear(work.tables * work.dim, 1)

    def forward(self, batch: SampleBatch) -> tuple[Tensor, Tensor]:
        """-> losses (1,), scores (B,)."""
        pooled = self.ebc(batch.features)
        rows = torch.cat([pooled[name] for name in self.features], dim=1)  # (B, tables * dim)
        score = self.score(rows).squeeze(1)
        loss = F.binary_cross_entropy_with_logits(score, batch.labels)
        return loss[None], score.detach()


def batches(work: Work, rank: int, world_size: int) -> Iterator[SampleBatch]:
    """The rank's part of DISTINCT_BATCHES batches, again and again."""
    each = work.batch_size // world_size
    own = slice(rank * each, (rank + 1) * each)
    made = []
    for number in range(DISTINCT_BATCHES):
        values = work.ids(number)[:, own].reshape(-1)
        lengths = torch.full((work.tables * each,), IDS_PER_BAG)
        made.append(
            SampleBatch(
                features=KeyedJaggedTensor(work.features, values, lengths=lengths),
                labels=(values[: each * IDS_PER_BAG : IDS_PER_BAG] % 2).float(),
            )
        )
    return cycle(made)
