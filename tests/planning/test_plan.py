"""Plans of two small tables on two ranks, by hand."""

from dataclasses import replace

import pytest

from flm_torchrec.errors import UserError
from flm_torchrec.planning.alternatives import by_family
from flm_torchrec.planning.cluster import Cluster
from flm_torchrec.planning.findings import findings
from flm_torchrec.planning.plan import NoPlan, Planned, make_plan
from flm_torchrec.planning.request import Request
from flm_torchrec.planning.tables import Table
from flm_torchrec.training import placing

TWO = Cluster(world_size=2, local_world_size=2, device="cpu")
LARGE = Table(name="large", rows=1000, dim=16)
SMALL = Table(name="small", rows=400, dim=16, pooling=2)
WHOLE = Request(tables=(LARGE, SMALL), cluster=TWO, batch_size=8, types=("table_wise",))
# Weights, a state a row, ids and pooled rows of 16 bags.
LARGE_BYTES = 1000 * 16 * 4 + 1000 * 4 + 16 * 8 + 16 * 16 * 4
SMALL_BYTES = 400 * 16 * 4 + 400 * 4 + 2 * 16 * 8 + 16 * 16 * 4


def planned(request: Request) -> Planned:
    plan = make_plan(request)
    assert isinstance(plan, Planned), plan.reason
    return plan


def by_table(plan: Planned) -> dict[str, tuple[int, ...]]:
    return {placed.table: placed.ranks for placed in plan.placements}


def capped(request: Request, rank_bytes: int) -> Request:
    return replace(request, cluster=replace(request.cluster, host_memory=2 * rank_bytes))


def test_memory_is_that_of_rows_states_ids_and_pooled_rows():
    plan = planned(WHOLE)
    assert by_table(plan) == {"large": (0,), "small": (1,)}
    assert [load.host_memory for load in plan.ranks] == [LARGE_BYTES, SMALL_BYTES]
    assert [load.hbm for load in plan.ranks] == [0, 0]


def test_the_optimizer_counts():
    plan = planned(replace(WHOLE, optimizer="adagrad"))
    more = 1000 * 16 * 4 - 1000 * 4
    assert plan.ranks[0].host_memory == LARGE_BYTES + more
    assert planned(replace(WHOLE, optimizer="sgd")).ranks[0].host_memory == LARGE_BYTES - 4000


def test_row_wise_shards_are_halves():
    plan = planned(replace(WHOLE, constraints={"large": "row_wise"}))
    large, small = plan.placements
    assert large.shards == ((500, 16), (500, 16))
    assert large.ranks == (0, 1)
    assert small.sharding_type == "table_wise"


def test_a_step_is_the_busiest_rank_and_the_bottleneck_is_there():
    plan = planned(WHOLE)
    busiest = max(plan.ranks, key=lambda load: load.total_ms)
    assert plan.step_ms == busiest.total_ms
    assert plan.bottleneck.rank == busiest.rank
    assert plan.bottleneck.table in by_table(plan)
    counted = {k: v for k, v in busiest.parts_ms.items() if k != "input_exchange"}
    assert busiest.total_ms == pytest.approx(sum(counted.values()))
    assert plan.bottleneck.part == max(counted, key=lambda part: counted[part])


def test_an_exchange_of_ids_that_outlasts_all_else_is_the_step():
    large = replace(LARGE, pooling=10_000.0)  # of which one row comes back
    slow = replace(
        WHOLE, tables=(large, SMALL), cluster=replace(WHOLE.cluster, intra_bandwidth=1e6)
    )
    plan = planned(slow)
    busiest = max(plan.ranks, key=lambda load: load.total_ms)
    parts = dict(busiest.parts_ms)
    assert plan.step_ms == busiest.total_ms == parts.pop("input_exchange") > sum(parts.values())
    assert plan.bottleneck.part == "input_exchange"
    assert plan.bottleneck.table == "large"


def test_a_plan_is_told_as_a_run_writes_it():
    third = Table(name="third", rows=10, dim=16)
    request = replace(WHOLE, tables=(LARGE, SMALL, third), constraints={"small": "row_wise"})
    assert planned(request).sharding == {"default": "table_wise", "small": "row_wise"}


def test_runners_up_are_worse_and_differ():
    plan = planned(replace(WHOLE, types=("table_wise", "row_wise")))
    assert plan.runners_up
    for other in plan.runners_up:
        assert other.step_ms >= plan.step_ms
        assert other.differs


def test_a_table_that_fits_no_rank_fits_row_wise():
    request = capped(WHOLE, LARGE_BYTES - 1)
    plan = make_plan(request)
    assert isinstance(plan, NoPlan)
    assert plan.unfit == ("large",)
    assert plan.smallest["large"] == LARGE_BYTES
    error = findings(plan)[0]
    assert (error.level, error.kind, error.tables) == ("error", "nothing_fits", ("large",))
    helps = {remedy.change: remedy.step_ms is not None for remedy in error.remedies}
    assert helps["row_wise for large"]
    assert helps["fp16 for large"]
    assert helps["ids of large hashed to 1/2 of the rows"]
    assert not helps["16 ranks instead of 2"]  # a whole table fits none of them either
    row_wise = planned(replace(request, constraints={"large": "row_wise"}))
    half = LARGE_BYTES // 2 + 16 * 16 * 4 // 2  # each half has pooled rows of its own
    assert row_wise.ranks[0].host_memory in (half, half + SMALL_BYTES)


def test_tables_that_fit_no_world_are_told_by_their_sum():
    plan = make_plan(capped(replace(WHOLE, types=("table_wise", "row_wise")), 30_000))
    assert isinstance(plan, NoPlan)
    assert plan.needed == LARGE_BYTES + SMALL_BYTES
    assert plan.capacity == 60_000
    text = findings(plan)[0].text
    assert "nothing fits" in text
    assert "a rank has 30.0 KB for tables" in text


def test_host_memory_takes_what_a_gpu_cannot():
    cluster = Cluster(world_size=2, local_world_size=2, hbm=40_000, host_memory=10**9)
    request = replace(WHOLE, cluster=cluster, batch_size=1, tables=(LARGE,))
    plan = make_plan(request)
    assert isinstance(plan, NoPlan)
    helps = {r.change: r.step_ms is not None for r in findings(plan)[0].remedies}
    assert helps["fused_uvm for large: rows in host memory"]
    on_host = planned(replace(request, kernels={"large": "fused_uvm"}))
    assert on_host.placements[0].host_memory > 64_000
    assert on_host.placements[0].hbm < 1_000


WIDER = replace(WHOLE, tables=tuple(replace(table, dim=64) for table in WHOLE.tables))


def test_torchrec_counts_the_bytes_that_are_sent():
    whole = planned(WIDER)
    for communication, bytes_sent in (("fp16", 2), ("bf16", 2), ("int8", 1)):
        plan = planned(replace(WIDER, communication=communication))
        for part in ("forward_exchange", "backward_exchange"):
            now, before = (p.ranks[0].parts_ms[part] for p in (plan, whole))
            assert now == pytest.approx(before * bytes_sent / 4)


def test_rows_kept_in_fp16_are_sent_in_fp32():
    halves = tuple(replace(table, dtype="fp16") for table in WIDER.tables)
    whole, half = planned(WIDER).ranks[0], planned(replace(WIDER, tables=halves)).ranks[0]
    assert half.host_memory < whole.host_memory
    for part in ("forward_exchange", "backward_exchange"):
        assert half.parts_ms[part] == whole.parts_ms[part]


def test_int8_is_planned_where_it_works():
    request = replace(WIDER, communication="int8", types=("table_wise", "row_wise"))
    assert {placed.sharding_type for placed in planned(request).placements} == {"table_wise"}
    assert "row_wise" not in by_family(request)
    with pytest.raises(UserError, match="int8 can't add up the rows of large, which is row_wise"):
        replace(request, constraints={"large": "row_wise"})
    for types in (("table_wise",), ("row_wise", "table_wise")):
        with pytest.raises(UserError, match="large has shards 16 wide; allowed: multiples of 32"):
            replace(WHOLE, communication="int8", types=types)
    # Where copies may be had, narrow tables are copied.
    request = replace(WHOLE, communication="int8", types=("data_parallel", "table_wise"))
    assert {placed.sharding_type for placed in planned(request).placements} == {"data_parallel"}
    assert by_family(request).keys() == {"data_parallel"}


def test_copies_in_fp16_are_not_planned():
    halves = tuple(replace(table, dtype="fp16") for table in WHOLE.tables)
    request = replace(WHOLE, tables=halves, types=("table_wise", "data_parallel"))
    assert {placed.sharding_type for placed in planned(request).placements} == {"table_wise"}
    assert "data_parallel" not in by_family(request)
    with pytest.raises(UserError, match="small is data_parallel, but its rows are fp16"):
        replace(request, constraints={"small": "data_parallel"})


def test_as_much_of_a_gpu_stays_free_as_in_training():
    cluster = Cluster(world_size=2, local_world_size=2, hbm=1000)
    plan = make_plan(replace(WHOLE, cluster=cluster))
    assert isinstance(plan, NoPlan)
    assert plan.room == 1000 * (1 - placing.RESERVED)


def test_every_family_is_planned_or_has_a_reason():
    plans = by_family(capped(WHOLE, LARGE_BYTES))
    assert plans.keys() == set(placing.SHARDING_TYPES)
    assert isinstance(plans["row_wise"], Planned)
    assert isinstance(plans["data_parallel"], NoPlan)


def test_hosts_that_a_type_needs_are_met_across_two():
    cluster = Cluster(world_size=4, local_world_size=2, device="cpu")
    plan = planned(replace(WHOLE, cluster=cluster, types=("table_row_wise",)))
    assert all(len(placed.ranks) == 2 for placed in plan.placements)


def kinds(plan: Planned) -> dict[str, tuple[str, ...]]:
    return {finding.kind: finding.tables for finding in findings(plan)}


def test_data_parallel_tables_are_told_by_their_dense_gradient():
    plan = planned(replace(WHOLE, types=("data_parallel",)))
    assert {f.tables for f in findings(plan) if f.kind == "dense_gradients"} == {
        ("large",),
        ("small",),
    }
    text = next(f.text for f in findings(plan) if f.tables == ("large",))
    assert "a dense gradient of 64.0 KB" in text
    assert "at most 0.8% of its rows" in text


def test_imbalance_is_told_with_what_was_tried():
    alone = replace(WHOLE, tables=(LARGE,), types=("table_wise", "row_wise"))
    plan = planned(replace(alone, constraints={"large": "table_wise"}))
    finding = next(f for f in findings(plan) if f.kind == "imbalance")
    assert "rank 0 works 2.00 times as long" in finding.text
    assert [remedy.change for remedy in finding.remedies] == ["row_wise for large"]
    assert finding.remedies[0].step_ms is not None


@pytest.mark.parametrize(
    ("dim", "dtype", "told"), [(10, "fp32", "Use 12"), (12, "fp16", "Use 16"), (12, "fp32", "")]
)
def test_widths_that_are_no_multiple_of_16_bytes_are_told(dim, dtype, told):
    table = Table(name="odd", rows=100, dim=dim, dtype=dtype)
    found = [f for f in findings(planned(replace(WHOLE, tables=(table,)))) if f.kind == "width"]
    assert [f.tables for f in found] == ([("odd",)] if told else [])
    assert all(told in f.text for f in found)


def test_narrow_rows_are_told_on_gpus_alone():
    assert "width" not in kinds(planned(WHOLE))
    cuda = replace(WHOLE, cluster=Cluster(world_size=2, local_world_size=2))
    assert kinds(planned(cuda))["width"] == ("large", "small")


def test_column_shards_are_told_under_row_wise_adagrad():
    wide = replace(WHOLE, tables=(Table(name="wide", rows=100, dim=256),), types=("column_wise",))
    plan = planned(wide)
    assert plan.placements[0].shards == ((100, 128), (100, 128))
    assert kinds(plan)["column_shards"] == ("wide",)
    assert "column_shards" not in kinds(planned(replace(wide, optimizer="adagrad")))


def test_constraints_that_leave_no_way_are_told():
    key_value = replace(WHOLE, kernels={"large": "key_value"})
    plan = make_plan(key_value)
    assert isinstance(plan, NoPlan)
    assert plan.reason == "there is no way to shard large by table_wise"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"optimizer": "adam"}, "adam' runs on CUDA only"),
        ({"types": ("diagonal",)}, "sharding: 'diagonal' is not one of"),
        ({"constraints": {"huge": "row_wise"}}, "sharding: 'huge' is no table; allowed: large"),
        ({"batch_size": 0}, "--batch-size: 0; allowed: 1 or more"),
    ],
)
def test_mistakes_in_a_request_are_told(change, told):
    with pytest.raises(UserError, match=told):
        replace(WHOLE, **change)


def test_tables_that_a_cpu_updates_on_one_core_are_named() -> None:
    shared = replace(LARGE, name="shared", features=("bought", "clicked"))
    half = replace(LARGE, name="half_rows", dtype="fp16")
    request = replace(WHOLE, tables=(LARGE, shared, half))
    assert kinds(planned(request))["slow_update"] == ("shared", "half_rows")
    by_sgd = replace(request, optimizer="sgd")
    assert kinds(planned(by_sgd))["slow_update"] == ("large", "shared", "half_rows")
    assert "slow_update" not in kinds(planned(WHOLE))
