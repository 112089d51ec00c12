import pytest

from flm_torchrec.errors import UserError
from flm_torchrec.planning.cluster import (
    Cluster,
    parse_bandwidth,
    parse_bytes,
    parse_sizes,
    shown_bytes,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [("80GB", 80 * 10**9), ("80GiB", 80 * 2**30), ("1.5 tb", 15 * 10**11), ("100B", 100)],
)
def test_sizes_are_decimal_or_binary(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["80", "GB", "-3GB", "0GB", "80GBs", "eighty GB", ""])
def test_a_size_that_cannot_be_read_is_told_with_its_option(text):
    with pytest.raises(UserError, match=f"--hbm: '{text}' is no size; allowed"):
        parse_bytes(text, "--hbm")


def test_bandwidths_are_bytes_a_second():
    assert parse_bandwidth("600GB/s") == 600e9
    assert parse_bandwidth("25 GiB/s") == 25 * 2**30


@pytest.mark.parametrize("text", ["600GB", "200Gb/s", "600GB/ms", "fast/s", "0GB/s"])
def test_a_bandwidth_in_bits_or_without_seconds_is_refused(text):
    with pytest.raises(UserError, match="--intra-bandwidth"):
        parse_bandwidth(text, "--intra-bandwidth")


def test_world_sizes_are_sorted_and_told_once():
    assert parse_sizes("64,8,64") == (8, 64)


@pytest.mark.parametrize("text", ["", "8,x", "0", "-8", "8.5"])
def test_world_sizes_that_cannot_be_read_are_refused(text):
    with pytest.raises(UserError, match="--world-size"):
        parse_sizes(text)


def test_ranks_fill_whole_hosts():
    with pytest.raises(UserError, match="12 ranks are no whole number of hosts of 8"):
        Cluster(world_size=12, local_world_size=8)


def test_a_cpu_has_no_hbm():
    with pytest.raises(UserError, match="--hbm: a cpu has none"):
        Cluster(world_size=2, local_world_size=2, device="cpu", hbm=1)


def test_ranks_share_the_memory_of_their_host():
    cluster = Cluster(world_size=16, local_world_size=8, host_memory=800)
    assert cluster.rank_host_memory == 100
    assert cluster.num_hosts == 2


def test_sizes_are_shown_with_a_prefix():
    assert [shown_bytes(size) for size in (0, 999, 20.6e9)] == ["0 B", "999 B", "20.6 GB"]
