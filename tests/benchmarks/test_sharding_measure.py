import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from calibrations import calibration
from flm_benchmarks.sharding.figures import figures_of, rate
from flm_benchmarks.sharding.ids import make_batches
from flm_benchmarks.sharding.measure import Measured, Work, check_even, measure, refused
from flm_benchmarks.sharding.memory import check_fits
from flm_benchmarks.sharding.model import PooledModel, load_model, tables_of
from flm_benchmarks.sharding.point import SHARDINGS, Point, usual_kernel
from flm_benchmarks.sharding.timing import PHASES, Spread, imbalance, slowest
from flm_benchmarks.sharding.traffic import SentBytes, copy_speed, useful_bytes
from torch import nn
from two_ranks.pool import Ranks

from flm_torchrec.errors import UserError
from flm_torchrec.planning.calibration import Collective, Line
from flm_torchrec.planning.tables import Table
from flm_torchrec.training.runtime import Runtime, all_gather
from flm_torchrec.training.sharding import describe_plan, shard

TABLES = (
    Table(name="a", rows=50, dim=8, pooling=2.5, features=("x", "y")),
    Table(name="b", rows=30, dim=4, is_weighted=True),
    Table(name="c", rows=30, dim=16),
)
WORK = Work(name="small", tables=TABLES, steps=3, warmup=1)
COPY = Spread(1e9, 0.9e9, 1.1e9, 1.1e9)


def measured(runtime: Runtime, point: Point) -> Measured:
    return measure(runtime, WORK, point, COPY)


def point_of(sharding: str, **more: Any) -> Point:
    return Point(sharding=sharding, kernel=usual_kernel(sharding), batch_size=8, **more)


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_every_sharding_type_has_all_figures_on_two_ranks(sharding: str, ranks: Ranks) -> None:
    point = point_of(sharding, pipeline="base" if sharding == "row_wise" else "sparse_dist")
    first, second = ranks.run(measured, point)
    assert first.repeats == second.repeats
    figures = first.figures
    assert {entry["table"] for entry in first.plan} == {"a", "b", "c"}
    assert all(len(seconds) == 3 for seconds in first.repeats.values())
    assert first.repeats.keys() == {"step", *PHASES}
    for times in (figures["step"], *figures["phases"].values()):
        assert 0 < times["p10_ms"] <= times["median_ms"] <= times["p90_ms"] <= times["p99_ms"]
    assert figures["samples_per_s"]["median"] == pytest.approx(8e3 / figures["step"]["median_ms"])
    assert figures["imbalance"]["p10"] >= 1
    assert all(peak > 0 for peak in figures["peak_memory_bytes"])
    assert all(sent["least"] > 0 for sent in figures["sent_bytes"])
    assert len(figures["sent_bytes"]) == len(figures["peak_memory_bytes"]) == 2
    predicted = figures["predicted"]
    ids, *parts = zip(*(parts.values() for parts in predicted["ranks_ms"]), strict=True)
    assert len(ids) == 2
    assert 0 < predicted["step_ms"] == pytest.approx(max(map(sum, zip(*parts, strict=True))))


@pytest.mark.parametrize("pipeline", ["base", "sparse_dist"])
def test_fp16_tables_are_measured_alone(pipeline: str, alone: Runtime) -> None:
    point = point_of("table_wise", dtype="fp16", pipeline=pipeline)
    figures = measured(alone, point).figures
    assert [sent["most"] for sent in figures["sent_bytes"]] == [0]
    wide = measured(alone, point_of("table_wise", dtype="fp32", pipeline=pipeline)).figures
    assert figures["table_bytes"] < wide["table_bytes"]


def test_quantised_tables_have_a_forward_pass_only(ranks: Ranks) -> None:
    point = Point(
        sharding="data_parallel", kernel="quant", dtype="int8", pipeline="base", batch_size=8
    )
    first, _ = ranks.run(measured, point)
    assert first.figures["passes"] == "forward only"
    assert first.figures["phases"].keys() == {"forward"}
    assert "predicted" not in first.figures


def sent_by_hand(runtime: Runtime) -> list[float]:
    counted = []
    for rows in (3, 5):
        with SentBytes() as sent:
            all_gather(torch.ones(rows, 2))
        counted.append(sent.total)
    with SentBytes() as sent:
        whole = torch.ones(6)
        torch.distributed.all_reduce(whole)
        given = torch.ones(4)
        torch.distributed.all_to_all_single(torch.empty(4), given)
    return [*counted, sent.total]


def test_sent_bytes_are_those_that_leave_the_rank(ranks: Ranks) -> None:
    for counted in ranks.run(sent_by_hand):
        assert counted == [3 * 2 * 4, 5 * 2 * 4, 6 * 4 + 4 * 4 / 2]


def test_the_figures_are_those_of_the_slowest_rank() -> None:
    seconds = torch.tensor([[1.0, 3.0, 2.0], [2.0, 1.0, 6.0]], dtype=torch.float64)
    assert slowest(seconds).tolist() == [2, 3, 6]
    assert imbalance(seconds).median == pytest.approx(1.5)
    parts = seconds[:, :, None].expand(-1, -1, len(PHASES))
    figures, repeats = figures_of(
        seconds,
        parts,
        samples=6,
        lookups=12.0,
        useful=3e9,
        copy=COPY,
        sent=torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]]),
        peaks=torch.tensor([[5.0], [6.0]]),
    )
    assert repeats["step"] == [2, 3, 6]
    assert figures["step"]["median_ms"] == 3000
    assert figures["samples_per_s"]["median"] == 2
    assert figures["lookups_per_s"]["median"] == 4
    assert figures["table_bytes_per_s"]["median"] == 1e9
    assert figures["share_of_copy"]["median"] == 1
    assert figures["sent_bytes"][0] == {"median": 2, "least": 1, "most": 4}
    assert figures["peak_memory_bytes"] == [5, 6]
    assert rate(10, Spread(2, 1, 5, 9)) == {"median": 5, "p10": 2, "p90": 10}


def test_table_traffic_counts_lookups_distinct_rows_and_the_optimizers_state() -> None:
    tables = (Table(name="t", rows=1, dim=4, pooling=3),)
    batches = make_batches(tables, 8, "uniform", seed=0, rank=0, world_size=1)
    lookups, distinct = 8 * 3, 1
    for optimizer, state in (("sgd", 0), ("rowwise_adagrad", 4), ("adagrad", 16), ("adam", 32)):
        expected = lookups * 16 + distinct * 2 * (16 + state)
        assert useful_bytes(tables, batches, optimizer) == expected
    assert useful_bytes(tables, batches, None) == lookups * (4 + 4)


def test_the_copy_speed_is_measured(alone: Runtime) -> None:
    speed = copy_speed(alone.device, megabytes=1, repeats=3)
    assert 0 < speed.p10 <= speed.median <= speed.p90


def uneven(runtime: Runtime) -> str:
    try:
        check_even([4, 4 - runtime.rank])
    except UserError as error:
        return str(error)
    return ""


def test_uneven_batches_are_refused_on_every_rank(ranks: Ranks) -> None:
    told = "batch 1 has 4, 3 samples on the ranks; allowed: the same number on each"
    assert ranks.run(uneven) == [told, told]


def test_tables_larger_than_the_machine_are_an_error_before_they_are_made() -> None:
    giant = (Table(name="t", rows=10**12, dim=64),)
    with pytest.raises(MemoryError, match="of this machine, which has"):
        check_fits(giant, Point(), "sgd", world_size=1, local_ranks=1)
    check_fits(TABLES, Point(sharding="data_parallel"), "sgd", world_size=2, local_ranks=2)


MODELS = """
from flm_benchmarks.sharding.model import PooledModel
from flm_torchrec.planning.tables import Table

def build():
    return PooledModel([Table(name="t", rows=20, dim=4)])

def nothing():
    return None

class Empty:
    pass
"""


def test_a_model_of_ones_own_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: Runtime
) -> None:
    (tmp_path / "own_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    build = load_model("own_models:build")
    tables = tables_of(build())
    assert tables == (Table(name="t", rows=20, dim=4, features=("t",)),)
    work = Work(name="own_models:build", tables=tables, build=build, steps=2, warmup=1)
    assert measure(alone, work, point_of("table_wise", pooling=3.0), COPY).repeats["step"]
    assert refused(work, point_of("table_wise", dtype="fp32")) is None
    assert refused(work, point_of("table_wise", dtype="fp16")) is not None
    for name, told in (
        ("own_models", "allowed: module:function"),
        ("own_models:absent", "own_models has no 'absent'"),
        ("no_such_models:build", "there is no module 'no_such_models'"),
        ("own_models:nothing", "allowed: a function that returns an nn.Module"),
    ):
        with pytest.raises(UserError, match=told):
            load_model(name)
    with pytest.raises(UserError, match="has no EmbeddingBagCollection"):
        tables_of(nn.Linear(1, 1))


def test_the_model_reads_every_feature_once() -> None:
    model = PooledModel(TABLES)
    assert {(t.name, t.is_weighted, t.feature_names) for t in tables_of(model)} == {
        ("a", False, ("x", "y")),
        ("b", True, ("b",)),
        ("c", False, ("c",)),
    }


def sharded(runtime: Runtime, kernels: dict[str, str]) -> list[str]:
    try:
        dmp, _ = shard(
            PooledModel(TABLES),
            runtime.device,
            batch_size=4,
            sparse_optimizer="sgd",
            sparse_lr=0.1,
            dense_optimizer=lambda named: torch.optim.SGD([p for _, p in named], lr=0.1),
            default="table_wise",
            kernels=kernels,
        )
    except UserError as error:
        return [str(error)]
    return [entry["kernel"] for entry in describe_plan(dmp)]


def test_a_table_can_have_a_kernel_of_its_own_where_its_type_has_it(ranks: Ranks) -> None:
    assert ranks.run(sharded, {"a": "fused"}) == [["fused"] * 3] * 2
    for kernels, told in (
        ({"a": "dense"}, "kernels.a: 'dense' is not one of fused"),
        ({"z": "fused"}, "kernels: table: 'z' is not one of"),
    ):
        for (error,) in ranks.run(sharded, kernels):
            assert told in error


def calibrated(runtime: Runtime, lines: dict[Collective, Line]) -> tuple[str, float]:
    """The type that is chosen for the table, and the predicted milliseconds."""
    known = calibration(lookup=Line(), update=Line(), dense_update=Line(), collectives=lines)
    work = replace(WORK, tables=(Table(name="a", rows=50, dim=8),), calibration=known)
    found = measure(runtime, work, point_of("auto"), COPY)
    return found.plan[0]["sharding_type"], found.figures["predicted"]["step_ms"]


def test_a_calibration_plans_and_predicts(ranks: Ranks) -> None:
    free: dict[Collective, Line] = {
        "all_to_all": Line(),
        "reduce_scatter": Line(),
        "all_gather": Line(),
    }
    slow_rows: dict[Collective, Line] = {**free, "reduce_scatter": Line(fixed_ms=5.0)}
    slow_tables: dict[Collective, Line] = {
        **free,
        "all_to_all": Line(fixed_ms=1.0),
        "all_gather": Line(fixed_ms=0.5),
    }
    assert ranks.run(calibrated, slow_rows) == [("table_wise", 0.0)] * 2
    # Ids go both ways by all_to_all; rows of tables too, and back.
    assert ranks.run(calibrated, slow_tables) == [("row_wise", 2.5)] * 2


def test_the_prediction_counts_the_ids_of_a_bag(alone: Runtime) -> None:
    few, many = (
        measured(alone, point_of("table_wise", pooling=pooling)).figures["predicted"]["step_ms"]
        for pooling in (1.0, 10.0)
    )
    assert many > 2 * few
