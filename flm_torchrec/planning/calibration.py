"""What was measured of a machine, in a file that the planner reads.

Example:
    calibration = read_calibration(Path("calibration.json"))
    calibration.lookup.ms(ids=1e6, size=256e6, table=1e9)
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_file
from flm_torchrec.planning.cluster import Cluster
from flm_torchrec.typed_yaml import Positive, Rate, Strict

FORMAT, VERSION = "flm-calibration", 2
Collective = Literal["all_to_all", "all_gather", "reduce_scatter", "all_reduce"]
COLLECTIVES: tuple[Collective, ...] = ("all_to_all", "all_gather", "reduce_scatter", "all_reduce")
_NEAR, _FAR = 2**20, 2**28  # bytes of a table that caches hold, and of one that they don't


def far_share(table: float) -> float:
    """The part of a table's rows that lies outside of caches: 0 up to 1 MiB, 1 from 256 MiB on."""
    share = math.log2(max(table, 1) / _NEAR) / math.log2(_FAR / _NEAR)
    return min(1.0, max(0.0, share))


class Line(Strict):
    """Milliseconds of one call: a fixed part and what ids and bytes add."""

    fixed_ms: Rate = 0.0
    id_ms: Rate = 0.0
    far_id_ms: Rate = 0.0  # more an id where its row is far
    byte_ms: Rate = 0.0
    far_byte_ms: Rate = 0.0  # more a byte where it is far

    def work_ms(self, *, ids: float = 0, size: float = 0, table: float = 0) -> float:
        """Without the fixed part: `size` bytes are moved, the rows lie in `table` bytes."""
        far = far_share(table)
        return (self.id_ms + self.far_id_ms * far) * ids + (
            self.byte_ms + self.far_byte_ms * far
        ) * size

    def ms(self, *, ids: float = 0, size: float = 0, table: float = 0) -> float:
        """With the fixed part."""
        return self.fixed_ms + self.work_ms(ids=ids, size=size, table=table)


class Steps(Strict):
    """From what the parts of a step take alone to what a step takes."""

    fixed_ms: Rate = 0.0  # a step
    group_ms: dict[str, Rate] = {}  # a sharding type in use
    shard_ms: Rate = 0.0  # a shard on the rank that has most
    scale: Rate = 1.0  # of the parts
    error: Rate = 0.0  # median, relative, of each measured step by a fit to the others
    rank_correlation: float = 0.0  # of the same predictions with what was measured
    torchrec_error: Rate = 0.0  # by TorchRec's own constants
    torchrec_rank_correlation: float = 0.0


class Calibration(Strict):
    """The cost of lookups, updates and collectives on a machine."""

    format: Literal["flm-calibration"] = FORMAT
    version: Literal[2] = VERSION
    created: str
    machine: dict[str, Any]
    versions: dict[str, str]
    ids: str = "uniform"  # how often the rows of a lookup were met
    device: Literal["cpu", "cuda"]
    world_size: Positive
    local_world_size: Positive
    copy_bandwidth: Rate  # bytes/s, read and written
    lookup: Line
    update: Line
    dense_update: Line  # of a data-parallel table, its gradient and state
    collectives: dict[Collective, Line]  # by the bytes of a rank's larger tensor
    steps: Steps | None = None
    measured: list[dict[str, Any]] = []  # the points behind the lines


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write the whole file or none of it, with a checksum of its content."""
    content = calibration.model_dump(mode="json")
    with atomic_file(path) as file:
        file.write_text(
            json.dumps({**content, "checksum": _checksum(content)}, indent=1) + "\n",
            encoding="utf-8",
        )


def read_calibration(path: Path, *, option: str = "--calibration") -> Calibration:
    """A file that `write_calibration` wrote; UserError that says what is wrong with another."""
    told, again = f"{option} {path}", "; measure again with: flm plan calibrate"
    if not path.is_file():
        raise UserError(f"{told}: there is no such file{again}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{told}: is not JSON: {error}{again}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{told}: is no calibration (format: {FORMAT}){again}")
    if content.get("version") != VERSION:
        raise UserError(f"{told}: version {content.get('version')}; allowed: {VERSION}{again}")
    checksum = content.pop("checksum", None)
    if checksum != _checksum(content):
        raise UserError(f"{told}: is not as it was written (its checksum differs){again}")
    try:
        return Calibration.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{told}: {key}: {first['msg']}{again}") from None


def fitting_calibration(path: Path, cluster: Cluster, *, option: str) -> Calibration:
    """That of a file; UserError where it was measured on other ranks."""
    known = read_calibration(path, option=option)
    measured = known.device, known.world_size, known.local_world_size
    if measured != (cluster.device, cluster.world_size, cluster.local_world_size):
        raise UserError(
            f"{option} {path} was measured on {_told(*measured)}, the run has "
            f"{_told(cluster.device, cluster.world_size, cluster.local_world_size)}; allowed: a "
            "calibration of as many ranks on such machines, or none"
        )
    return known


def _told(device: str, world_size: int, local_world_size: int) -> str:
    return f"{world_size} {device} ranks, {local_world_size} a host"


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
