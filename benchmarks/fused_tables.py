"""Lookup and update of large tables: fused kernels against `nn.EmbeddingBag` with sparse SGD."""

from collections.abc import Callable, Sequence
from itertools import cycle
from time import perf_counter
from typing import Any

import numpy as np
import torch
from flm_benchmarks.harness import in_turn, spread
from flm_benchmarks.sharding.traffic import copy_speed
from torch import Tensor, nn
from torchrec import KeyedJaggedTensor

from flm_torchrec.planning.request import meta_collection
from flm_torchrec.planning.tables import Dtype, Table
from flm_torchrec.training.runtime import Runtime, start
from flm_torchrec.training.sharding import shard

TABLES, DIM, SAMPLES, POOLING = 4, 64, 2048, 20
DISTINCT_BATCHES = 4
FEATURES = [f"f{place}" for place in range(TABLES)]
FLOAT = 4  # bytes


def zipf_ids(rows: int, *, batches: int) -> list[Tensor]:
    """(TABLES, SAMPLES * POOLING) rows each; common ids are anywhere in the table."""
    places = np.random.default_rng(0).permutation(rows)
    shape = TABLES, SAMPLES * POOLING
    drawn = (np.random.default_rng((1, n)).zipf(1.1, shape) for n in range(batches))
    return [torch.from_numpy(places[(ids - 1) % rows]) for ids in drawn]


def traffic(ids: Sequence[Tensor]) -> float:
    """Bytes of rows that a step has to move: one read a lookup, a read and a write a distinct row;
    mean of the batches."""
    distinct = sum(len(of_table.unique()) for batch in ids for of_table in batch) / len(ids)
    return FLOAT * DIM * (TABLES * SAMPLES * POOLING + 2 * distinct)


def plain_step(rows: int, ids: Sequence[Tensor]) -> Callable[[], float]:
    """A step by torch alone."""
    tables = nn.ModuleList(nn.EmbeddingBag(rows, DIM, sparse=True, mode="sum") for _ in FEATURES)
    optimizer = torch.optim.SGD(tables.parameters(), lr=1e-3)
    offsets = torch.arange(0, SAMPLES * POOLING, POOLING)
    source = cycle(ids)

    def step() -> float:
        batch = next(source)
        begin = perf_counter()
        optimizer.zero_grad()
        pooled = [table(own, offsets) for table, own in zip(tables, batch, strict=True)]
        torch.cat(pooled, dim=1).sum().backward()
        optimizer.step()
        return perf_counter() - begin

    return step


class Pooled(nn.Module):
    """The sum of all pooled rows."""

    def __init__(self, tables: Sequence[Table]) -> None:
        super().__init__()
        self.ebc = meta_collection(tables)

    def forward(self, features: KeyedJaggedTensor) -> Tensor:
        """-> ()"""
        pooled = self.ebc(features)
        return torch.cat([pooled[name] for name in FEATURES], dim=1).sum()


def fused_step(
    runtime: Runtime,
    rows: int,
    ids: Sequence[Tensor],
    *,
    optimizer: str,
    dtype: Dtype = "fp32",
    is_shared: bool = False,
) -> Callable[[], float]:
    """A step by the kernels that update rows inside backward, on a table a feature or on one that
    all features share."""
    read = [tuple(FEATURES)] if is_shared else [(name,) for name in FEATURES]
    dmp, stepped = shard(
        Pooled(
            [
                Table(name=f"t{n}", rows=rows, dim=DIM, dtype=dtype, features=names)
                for n, names in enumerate(read)
            ]
        ),
        runtime.device,
        batch_size=SAMPLES,
        sparse_optimizer=optimizer,
        sparse_lr=1e-3,
        dense_optimizer=lambda named: torch.optim.SGD([p for _, p in named], lr=1e-3),
        default="table_wise",
    )
    lengths = torch.full((TABLES * SAMPLES,), POOLING)
    source = cycle(KeyedJaggedTensor(FEATURES, batch.reshape(-1), lengths=lengths) for batch in ids)

    def step() -> float:
        batch = next(source)
        begin = perf_counter()
        stepped.zero_grad()
        dmp(batch).backward()
        stepped.step()
        return perf_counter() - begin

    return step


# What FBGEMM's CPU backward does in another way: name -> what the tables are updated with, and are.
KERNELS: dict[str, dict[str, Any]] = {
    "rowwise_adagrad": {"optimizer": "rowwise_adagrad"},
    "sgd": {"optimizer": "sgd"},
    "adagrad": {"optimizer": "adagrad"},
    "rowwise_adagrad, one table for all features": {
        "optimizer": "rowwise_adagrad",
        "is_shared": True,
    },
    "rowwise_adagrad, fp16": {"optimizer": "rowwise_adagrad", "dtype": "fp16"},
}


def measure(*, rows: int, repeats: int) -> dict[str, Any]:
    """Plain tables and fused ones by each kernel in turn, on the same ids."""
    ids = zipf_ids(rows, batches=DISTINCT_BATCHES)
    with start() as runtime:
        fused = [fused_step(runtime, rows, ids, **kernel) for kernel in KERNELS.values()]
        medians, seconds = in_turn([plain_step(rows, ids), *fused], repeats=repeats)
        bandwidth = copy_speed(runtime.device, megabytes=512).median
    plain, moved = medians[0], traffic(ids)
    return {
        "tables": TABLES,
        "rows": rows,
        "dim": DIM,
        "samples": SAMPLES,
        "ids_a_bag": POOLING,
        "threads": torch.get_num_threads(),
        "copy_gb_per_s": bandwidth / 1e9,
        "plain_ms": 1e3 * plain,
        "plain_spread": spread(seconds[0]),
        "fused": {
            name: {
                "ms": 1e3 * median,
                "ratio": plain / median,
                "table_gb_per_s": moved / median / 1e9,
                "share_of_copy": moved / median / bandwidth,
                "spread": spread(column),
            }
            for name, median, column in zip(KERNELS, medians[1:], seconds[1:], strict=True)
        },
    }
