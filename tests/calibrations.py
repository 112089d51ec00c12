"""A calibration made by hand."""

from collections.abc import Mapping

from flm_torchrec.planning.calibration import Calibration, Collective, Line


def calibration(
    *,
    lookup: Line,
    update: Line,
    dense_update: Line,
    collectives: Mapping[Collective, Line],
) -> Calibration:
    """Of two ranks on a CPU, without whole steps."""
    return Calibration(
        created="2026-01-01",
        machine={},
        versions={},
        device="cpu",
        world_size=2,
        local_world_size=2,
        copy_bandwidth=1e10,
        lookup=lookup,
        update=update,
        dense_update=dense_update,
        collectives=dict(collectives),
    )
