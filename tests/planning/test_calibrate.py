"""Measuring on one and on two ranks; what comes out is a number above 0, not a certain one."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchrec import KeyedJaggedTensor
from two_ranks.pool import Ranks

from flm_torchrec.planning.calibrate import calibrate
from flm_torchrec.planning.calibration import COLLECTIVES, Calibration
from flm_torchrec.planning.cluster import Cluster
from flm_torchrec.planning.plan import Planned, make_plan
from flm_torchrec.planning.price import price
from flm_torchrec.planning.request import Request, cluster_here, meta_collection
from flm_torchrec.planning.tables import Table
from flm_torchrec.training.placing import SHARDING_TYPES
from flm_torchrec.training.runtime import Runtime
from flm_torchrec.training.sharding import shard

TABLES = tuple(Table(name=f"t{place}", rows=100, dim=16) for place in range(3))
TWO = Request(
    tables=TABLES,
    cluster=Cluster(world_size=2, local_world_size=2, device="cpu"),
    batch_size=8,
    types=SHARDING_TYPES,
)


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ebc = meta_collection(TABLES)

    def forward(self, kjt: KeyedJaggedTensor) -> Tensor:
        return self.ebc(kjt).values()


def measured(runtime: Runtime) -> dict[str, Any]:
    return calibrate(runtime, repeats=2, is_short=True).model_dump(mode="json")


def priced(runtime: Runtime, constraints: dict[str, str]) -> tuple[float, int]:
    dmp, _ = shard(
        Pooled(),
        runtime.device,
        batch_size=8,
        sparse_optimizer="sgd",
        sparse_lr=0.1,
        dense_optimizer=lambda named: torch.optim.SGD([p for _, p in named]),
        constraints=constraints,
    )
    found = price(TWO, dmp.plan)
    return found.step_ms, found.shards


def test_two_ranks_measure_alike_and_what_they_exchange(ranks: Ranks) -> None:
    first, second = (Calibration.model_validate(found) for found in ranks.run(measured))
    for known in (first, second):
        assert known.world_size == 2
        assert known.collectives.keys() == set(COLLECTIVES)
        assert known.lookup.ms(ids=100, size=1e4) > 0
        assert known.update.ms(ids=100, size=1e4) > 0
    assert first.collectives == second.collectives
    assert first.steps == second.steps
    kinds = {point["kind"] for point in first.measured}
    assert kinds == {"lookup", "update", "dense_update", "step", *COLLECTIVES}
    assert isinstance(make_plan(TWO), Planned)


@pytest.mark.parametrize("kind", ["table_wise", "row_wise", "data_parallel"])
def test_the_plan_of_a_sharded_model_costs_what_the_same_plan_offline_does(
    ranks: Ranks, kind: str
) -> None:
    constraints = {table.name: kind for table in TABLES}
    (step_ms, shards), other = ranks.run(priced, constraints)
    assert (step_ms, shards) == other
    request = Request(
        tables=TABLES, cluster=TWO.cluster, batch_size=8, types=(kind,), optimizer="sgd"
    )
    plan = make_plan(request)
    assert isinstance(plan, Planned)
    assert step_ms == pytest.approx(plan.step_ms)
    assert shards == (2 if kind == "table_wise" else 3)


def test_the_cluster_of_a_job_is_of_its_ranks_and_their_device(alone: Runtime) -> None:
    one = Cluster(world_size=1, local_world_size=1, device="cpu")
    assert cluster_here(alone) == one
    on_gpu = replace(alone, device=torch.device("cuda"))
    assert cluster_here(on_gpu) == replace(one, device="cuda")
