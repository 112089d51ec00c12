"""What the sharding benchmark trains: tables under a small dense part, or a model of the reader's.

A model of one's own is a function without arguments that returns an nn.Module of a SampleBatch ->
(losses, output), its EmbeddingBagCollections on the meta device. It reads `batch.features`, or
`batch.weighted` where a collection has weights.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchrec.modules.embedding_configs import DataType
from torchrec.modules.embedding_modules import EmbeddingBagCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from flm_torchrec.data.batch import TensorBatch
from flm_torchrec.errors import UserError
from flm_torchrec.planning.request import meta_collection
from flm_torchrec.planning.tables import Dtype, Table

NUMBERS = 13  # beside the tables, as Criteo has
_HIDDEN = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleBatch(TensorBatch):
    """B samples of one rank."""

    features: KeyedJaggedTensor | None  # stride B; None where all tables are weighted
    weighted: KeyedJaggedTensor | None  # stride B; None where none is
    numbers: Tensor  # (B, NUMBERS) float32
    labels: Tensor  # (B,) 0 or 1


class PooledModel(nn.Module):
    """Pooled rows beside numbers -> two linear layers -> losses (1,), scores (B,)."""

    def __init__(self, tables: Sequence[Table]) -> None:
        super().__init__()
        plain = [table for table in tables if not table.is_weighted]
        weighted = [table for table in tables if table.is_weighted]
        self.ebc = meta_collection(plain) if plain else None
        self.weighted_ebc = meta_collection(weighted, is_weighted=True) if weighted else None
        self.features = [name for table in plain for name in table.feature_names]
        self.weighted_features = [name for table in weighted for name in table.feature_names]
        width = sum(table.dim * len(table.feature_names) for table in tables)
        self.score = nn.Sequential(
            nn.Linear(width + NUMBERS, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1)
        )

    def forward(self, batch: SampleBatch) -> tuple[Tensor, Tensor]:
        """-> losses (1,), scores (B,)."""
        rows = [batch.numbers]
        if self.ebc is not None:
            pooled = self.ebc(batch.features).to_dict()
            rows += [pooled[name] for name in self.features]
        if self.weighted_ebc is not None:
            pooled = self.weighted_ebc(batch.weighted).to_dict()
            rows += [pooled[name] for name in self.weighted_features]
        score = self.score(torch.cat(rows, dim=1)).squeeze(1)
        loss = F.binary_cross_entropy_with_logits(score, batch.labels)
        return loss[None], score.detach()


def load_model(name: str) -> Callable[[], nn.Module]:
    """The function called module:function, looked for in the working directory too."""
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        raise UserError(f"--model: '{name}'; allowed: module:function, as mine.models:build")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise UserError(f"--model: '{name}': there is no module '{error.name}'") from error
    except AttributeError as error:
        raise UserError(f"--model: '{name}': {module} has no '{function}'") from error
    if not callable(found) or not isinstance(found(), nn.Module):
        raise UserError(f"--model: '{name}'; allowed: a function that returns an nn.Module")
    return cast(Callable[[], nn.Module], found)


def tables_of(model: nn.Module) -> tuple[Table, ...]:
    """The tables of a model's EmbeddingBagCollections; UserError where there are none."""
    names: dict[DataType, Dtype] = {DataType.FP32: "fp32", DataType.FP16: "fp16"}
    tables = []
    for module in model.modules():
        if not isinstance(module, EmbeddingBagCollection):
            continue
        for config in module.embedding_bag_configs():
            if config.data_type not in names:
                kind = config.data_type.value
                raise UserError(f"table '{config.name}': {kind}; allowed: FP32, FP16")
            tables.append(
                Table(
                    name=config.name,
                    rows=config.num_embeddings,
                    dim=config.embedding_dim,
                    features=tuple(config.feature_names),
                    is_weighted=module.is_weighted(),
                    dtype=names[config.data_type],
                )
            )
    if not tables:
        raise UserError("--model: has no EmbeddingBagCollection; there is nothing to shard")
    return tuple(tables)
