"""The machines of a plan, in the words of both versions of TorchRec."""

import pytest
from torchrec.distributed.planner import types as planner_types

from flm_torchrec.training.compat import Hardware, topology

KNOWN = Hardware(
    hbm=1000,
    host_memory=2000,
    hbm_bandwidth=3e9,
    host_bandwidth=4e9,
    intra_bandwidth=5e9,
    inter_bandwidth=6e8,
    backward_multiplier=7.0,
)


@pytest.fixture(params=["with a factory", "without one"])
def version(request, monkeypatch):
    if request.param == "without one":
        monkeypatch.delattr(planner_types, "TopologyFactory")


@pytest.mark.usefixtures("version")
def test_what_is_known_replaces_torchrecs_figures():
    made = topology(4, 2, "cuda", KNOWN)
    assert (made.world_size, made.local_world_size, made.compute_device) == (4, 2, "cuda")
    assert {(d.storage.hbm, d.storage.ddr) for d in made.devices} == {(1000, 2000)}
    # Bytes a millisecond.
    assert (made.hbm_mem_bw, made.ddr_mem_bw) == (3e6, 4e6)
    assert (made.intra_host_bw, made.inter_host_bw) == (5e6, 6e5)
    assert made.bwd_compute_multiplier == 7.0


@pytest.mark.usefixtures("version")
def test_nothing_known_leaves_them():
    plain, empty = topology(2, 2, "cuda"), topology(2, 2, "cuda", Hardware())
    for made in (plain, empty):
        assert made.devices[0].storage.hbm == 32 * 2**30
        assert made.bwd_compute_multiplier == 2
    assert plain.hbm_mem_bw == empty.hbm_mem_bw
    assert plain.inter_host_bw == empty.inter_host_bw
