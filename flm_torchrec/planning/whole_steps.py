"""Whole steps of small sharded models: what a step takes beyond its lookups and exchanges."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product, repeat
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec import KeyedJaggedTensor

from flm_torchrec.planning.calibration import Calibration, Steps
from flm_torchrec.planning.cluster import Cluster
from flm_torchrec.planning.fit import median_error, nonnegative, rank_correlation
from flm_torchrec.planning.ids import Ids
from flm_torchrec.planning.measuring import Clock
from flm_torchrec.planning.price import Priced, price
from flm_torchrec.planning.request import Request, meta_collection
from flm_torchrec.planning.silence import silent
from flm_torchrec.planning.tables import Table
from flm_torchrec.training.pipeline import train_pipeline
from flm_torchrec.training.placing import SHARDING_TYPES
from flm_torchrec.training.sharding import shard

# Tables, width, bags on a rank and ids a bag.
_SHAPES = ((2, 16, 128, 1), (8, 16, 256, 2), (4, 64, 512, 10), (8, 64, 1024, 4), (48, 16, 256, 1))
_MIXED = (
    ("table_wise", "row_wise"),
    ("table_wise", "data_parallel"),
    ("row_wise", "data_parallel"),
    ("table_wise", "column_wise"),
)
_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class _Measured:
    kinds: tuple[str, ...]
    priced: Priced
    torchrec_ms: float
    step_ms: float


class TablesAlone(nn.Module):
    """Tables without a dense part: the loss is the mean of what they give."""

    def __init__(self, tables: Sequence[Table]) -> None:
        super().__init__()
        self.ebc = meta_collection(tables)

    def forward(self, kjt: KeyedJaggedTensor) -> tuple[Tensor, None]:
        """-> losses (1,), and no output"""
        return self.ebc(kjt).values().mean()[None], None


def measure_steps(
    clock: Clock, calibration: Calibration, ids: Ids, *, is_short: bool
) -> tuple[Steps, list[dict[str, Any]]]:
    """Steps of each sharding type and of mixtures; called by all ranks."""
    kinds: list[tuple[str, ...]] = [(kind,) for kind in SHARDING_TYPES]
    shapes = _SHAPES[:2] if is_short else _SHAPES
    kinds = [("table_wise",), ("row_wise",)] if is_short else [*kinds, *_MIXED]
    found = [_measure(clock, calibration, ids, *point) for point in product(kinds, shapes)]
    points = [
        {
            "kind": "step",
            "types": each.kinds,
            "parts_ms": each.priced.step_ms,
            "torchrec_ms": each.torchrec_ms,
            "ms": each.step_ms,
        }
        for each in found
    ]
    return _fitted(found), points


def _measure(
    clock: Clock,
    calibration: Calibration,
    ids: Ids,
    kinds: tuple[str, ...],
    shape: tuple[int, int, int, int],
) -> _Measured:
    count, dim, bags, pooling = shape
    tables = tuple(
        Table(name=f"t{place}", rows=_ROWS, dim=dim, pooling=pooling) for place in range(count)
    )
    constraints = {table.name: kinds[n % len(kinds)] for n, table in enumerate(tables)}
    with silent():
        dmp, optimizer = shard(
            TablesAlone(tables),
            clock.device,
            batch_size=bags,
            sparse_optimizer="rowwise_adagrad",
            sparse_lr=0.01,
            dense_optimizer=lambda named: torch.optim.SGD([p for _, p in named]),
            constraints=constraints,
        )
    kjt = KeyedJaggedTensor.from_lengths_sync(
        [table.name for table in tables],
        ids.draw(_ROWS, count * bags * pooling).to(clock.device),
        torch.full((count * bags,), pooling, device=clock.device),
    )

    pipeline, source = train_pipeline(dmp, optimizer, clock.device), repeat(kjt)
    step_ms = clock.time(lambda: pipeline.progress(source))
    request = Request(
        tables=tables,
        cluster=Cluster(
            world_size=dist.get_world_size(),
            local_world_size=calibration.local_world_size,
            device=calibration.device,
        ),
        batch_size=bags,
        types=SHARDING_TYPES,
        constraints=constraints,
        calibration=calibration,
    )
    return _Measured(
        kinds=tuple(sorted(set(kinds))),
        priced=price(request, dmp.plan),
        torchrec_ms=price(replace(request, calibration=None), dmp.plan).step_ms,
        step_ms=step_ms,
    )


def _fitted(found: list[_Measured]) -> Steps:
    kinds = sorted({kind for each in found for kind in each.kinds})
    features = np.asarray(
        [
            [1.0, each.priced.shards, each.priced.step_ms, *(float(k in each.kinds) for k in kinds)]
            for each in found
        ]
    )
    measured = np.asarray([each.step_ms for each in found])
    fixed, per_shard, scale, *groups = nonnegative(features.tolist(), measured.tolist())
    predicted = np.empty_like(measured)
    for place in range(len(found)):
        others = np.arange(len(found)) != place
        weights = nonnegative(features[others].tolist(), measured[others].tolist())
        predicted[place] = features[place] @ np.asarray(weights)
    torchrec = np.asarray([each.torchrec_ms for each in found])
    return Steps(
        fixed_ms=fixed,
        group_ms=dict(zip(kinds, groups, strict=True)),
        shard_ms=per_shard,
        scale=scale,
        error=median_error(predicted, measured),
        rank_correlation=rank_correlation(predicted, measured),
        torchrec_error=median_error(torchrec, measured),
        torchrec_rank_correlation=rank_correlation(torchrec, measured),
    )
