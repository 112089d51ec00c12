"""The cost of plans by a calibration with round numbers, by hand."""

from dataclasses import replace

import pytest
from calibrations import calibration

from flm_torchrec.errors import UserError
from flm_torchrec.planning.calibration import Line, Steps
from flm_torchrec.planning.cluster import Cluster
from flm_torchrec.planning.findings import findings
from flm_torchrec.planning.plan import Planned, make_plan
from flm_torchrec.planning.request import Request
from flm_torchrec.planning.tables import Table

# A table of 128 KiB is near, so its rows' distance costs nothing.
KNOWN = calibration(
    lookup=Line(fixed_ms=1.0, id_ms=0.01),
    update=Line(fixed_ms=2.0, id_ms=0.02),
    dense_update=Line(fixed_ms=3.0, byte_ms=1e-3),
    collectives={
        "all_to_all": Line(fixed_ms=0.5, byte_ms=1e-3),
        "reduce_scatter": Line(fixed_ms=4.0),
        "all_gather": Line(fixed_ms=5.0),
        "all_reduce": Line(fixed_ms=6.0, byte_ms=1e-4),
    },
)
TWO = Request(
    tables=tuple(Table(name=name, rows=1000, dim=16, pooling=3) for name in ("a", "b")),
    cluster=Cluster(world_size=2, local_world_size=2, device="cpu"),
    batch_size=8,
    types=("table_wise",),
    calibration=KNOWN,
)
IDS = 2 * 8 * 3  # of a table, on both ranks together
POOLED = 2 * 8 * 16 * 4  # bytes


def planned(request: Request) -> Planned:
    plan = make_plan(request)
    assert isinstance(plan, Planned), plan.reason
    return plan


def test_whole_tables_exchange_ids_and_pooled_rows():
    parts = planned(TWO).ranks[0].parts_ms
    assert parts == pytest.approx(
        {
            "overhead": 0,
            "input_exchange": 2 * 0.5 + IDS * 8 * 1e-3,
            "forward": 1 + IDS * 0.01,
            "forward_exchange": 0.5 + POOLED * 1e-3,
            "backward": 2 + IDS * 0.02,
            "backward_exchange": 0.5 + POOLED * 1e-3,
        }
    )


@pytest.mark.parametrize(("communication", "share"), [("fp16", 1 / 2), ("bf16", 1 / 2)])
def test_rows_sent_in_fewer_bytes_cost_fewer(communication, share):
    whole = planned(TWO).ranks[0].parts_ms
    parts = planned(replace(TWO, communication=communication)).ranks[0].parts_ms
    for name in ("forward_exchange", "backward_exchange"):
        assert parts.pop(name) == pytest.approx(0.5 + POOLED * share * 1e-3)
        del whole[name]
    assert parts == whole


def test_int8_sends_40_bytes_for_32_numbers():
    wide = tuple(replace(table, dim=32) for table in TWO.tables)
    parts = planned(replace(TWO, tables=wide, communication="int8")).ranks[0].parts_ms
    assert parts["forward_exchange"] == pytest.approx(0.5 + 2 * POOLED / 4 * 40 / 32 * 1e-3)


def test_all_ranks_wait_for_the_slowest_in_each_part():
    alone = replace(TWO, tables=TWO.tables[:1])
    plan = planned(alone)
    busy = [load.total_ms for load in plan.ranks]
    assert busy[0] > busy[1] > 0  # exchanges keep rank 1 busy too
    assert plan.step_ms == pytest.approx(busy[0])


def test_row_shards_share_the_ids_and_reduce():
    parts = planned(replace(TWO, types=("row_wise",))).ranks[0].parts_ms
    assert parts["forward"] == pytest.approx(1 + 2 * IDS / 2 * 0.01)
    assert parts["forward_exchange"] == 4
    assert parts["backward_exchange"] == 5


def test_data_parallel_tables_sum_dense_gradients():
    parts = planned(replace(TWO, types=("data_parallel",))).ranks[0].parts_ms
    table = 1000 * 16 * 4
    assert parts["input_exchange"] == 0
    assert parts["forward"] == pytest.approx(1 + 2 * IDS / 2 * 0.01)
    assert parts["backward"] == pytest.approx(2 + 3 + 2 * (IDS / 2 * 0.02 + table * 1e-3))
    assert parts["backward_exchange"] == pytest.approx(6 + 2 * table * 1e-4)


def test_the_planner_chooses_by_the_calibration():
    both = replace(TWO, types=("table_wise", "row_wise"))
    assert {p.sharding_type for p in planned(both).placements} == {"table_wise"}
    slow = KNOWN.collectives | {"all_to_all": Line(byte_ms=1.0)}
    fast_rows = {"reduce_scatter": Line(), "all_gather": Line()}
    other = KNOWN.model_copy(update={"collectives": slow | fast_rows})
    chosen = planned(replace(both, calibration=other)).placements
    assert {p.sharding_type for p in chosen} == {"row_wise"}


def test_whole_steps_scale_the_parts_and_add_to_them():
    steps = Steps(fixed_ms=10, group_ms={"table_wise": 5}, shard_ms=0.25, scale=2)
    plain = planned(TWO)
    scaled = planned(replace(TWO, calibration=KNOWN.model_copy(update={"steps": steps})))
    assert scaled.step_ms == pytest.approx(2 * plain.step_ms + 10 + 5 + 0.25)
    assert scaled.ranks[0].parts_ms["overhead"] == pytest.approx(15.25)


def test_a_bandwidth_that_is_given_replaces_the_measured_one():
    cluster = replace(TWO.cluster, intra_bandwidth=1e6)  # 1000 bytes a millisecond
    parts = planned(replace(TWO, cluster=cluster, types=("row_wise",))).ranks[0].parts_ms
    assert parts["forward_exchange"] == pytest.approx(4 + 2 * POOLED / 1000)


def test_hosts_that_were_not_measured_exchange_by_their_bandwidth():
    hosts = Cluster(world_size=4, local_world_size=2, device="cpu", inter_bandwidth=1e6)
    plan = planned(replace(TWO, cluster=hosts, types=("row_wise",)))
    assert plan.ranks[0].parts_ms["forward_exchange"] == pytest.approx(4 + 2 * 2 * POOLED / 1000)
    assert any("measured on 2 ranks" in finding.text for finding in findings(plan))


def test_a_calibration_of_another_device_is_refused():
    cuda = replace(TWO, cluster=Cluster(world_size=2, local_world_size=2))
    with pytest.raises(UserError, match="--calibration: was measured on cpu"):
        make_plan(cuda)


def test_rows_in_host_memory_are_told_to_have_no_time_of_their_own():
    cluster = Cluster(world_size=2, local_world_size=2, hbm=40_000, host_memory=10**9)
    on_gpus = KNOWN.model_copy(update={"device": "cuda"})
    failed = make_plan(replace(TWO, cluster=cluster, calibration=on_gpus, batch_size=1))
    told = [remedy.change for remedy in findings(failed)[0].remedies if remedy.kind == "uvm"]
    assert len(told) == 2
    assert all("no calibration measures it" in change for change in told)
