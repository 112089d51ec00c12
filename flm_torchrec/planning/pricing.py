"""The cluster and the costs of a request: TorchRec's own, or by a calibration."""

from collections.abc import Mapping

from torchrec.distributed.planner import ParameterConstraints, Topology
from torchrec.distributed.planner.shard_estimators import EmbeddingStorageEstimator
from torchrec.distributed.planner.types import ShardEstimator

from flm_torchrec.errors import UserError
from flm_torchrec.planning.additive import AdditiveCosts, AdditiveEstimator, Exchanges
from flm_torchrec.planning.costs import Costs
from flm_torchrec.planning.request import Request
from flm_torchrec.planning.silence import silent
from flm_torchrec.training.compat import Hardware, topology


def topology_of(request: Request) -> Topology:
    """The cluster in TorchRec's words."""
    cluster, known = request.cluster, request.calibration
    lookup = None if known is None else known.copy_bandwidth
    is_cuda = cluster.device == "cuda"
    hardware = Hardware(
        hbm=cluster.hbm,
        host_memory=cluster.rank_host_memory,
        hbm_bandwidth=lookup if is_cuda else None,
        host_bandwidth=None if is_cuda else lookup,
        intra_bandwidth=cluster.intra_bandwidth,
        inter_bandwidth=cluster.inter_bandwidth,
    )
    with silent():
        return topology(cluster.world_size, cluster.local_world_size, cluster.device, hardware)


def costs_of(request: Request) -> Costs:
    """What rates the plans of a request."""
    known, world_size = request.calibration, request.cluster.world_size
    if known is None:
        return Costs(world_size)
    return AdditiveCosts(world_size, known, _exchanges(request))


def estimators_of(
    request: Request, topology: Topology, constraints: Mapping[str, ParameterConstraints]
) -> list[ShardEstimator] | None:
    """What gives shards their milliseconds and bytes; None for TorchRec's own."""
    known = request.calibration
    if known is None:
        return None
    if known.device != request.cluster.device:
        raise UserError(
            f"--calibration: was measured on {known.device}; allowed: --device {known.device}, or "
            f"a calibration of a {request.cluster.device} machine"
        )
    return [
        AdditiveEstimator(
            known, request.cluster, _exchanges(request), request.bags, request.communication
        ),
        EmbeddingStorageEstimator(topology=topology, constraints=dict(constraints)),
    ]


def _exchanges(request: Request) -> Exchanges:
    assert request.calibration is not None
    inter = topology_of(request).inter_host_bw * 1000
    return Exchanges(request.calibration, request.cluster, inter)
