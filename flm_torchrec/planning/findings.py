"""What is wrong with a plan, in plain words.

Example:
    for finding in findings(planned):
        print(finding.level, finding.text)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flm_torchrec.planning.alternatives import Remedy, even, remedies
from flm_torchrec.planning.cluster import shown_bytes
from flm_torchrec.planning.plan import NoPlan, Planned
from flm_torchrec.planning.tables import WIDTHS, Table
from flm_torchrec.training.placing import DATA_PARALLEL, RESERVED

Level = Literal["error", "warning", "note"]
IMBALANCE = 1.2  # of the busiest rank against the mean
_FULL = 0.9  # of the memory that tables may take
_BLOCK = 32  # numbers of a row that a quarter of a GPU kernel's block reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to know, and what to do about it where something is known to help."""

    level: Level
    kind: str
    text: str
    tables: tuple[str, ...] = ()
    remedies: tuple[Remedy, ...] = ()


def findings(planned: Planned | NoPlan) -> list[Finding]:
    """Of a plan, or of why there is none; the worst first."""
    about = [*_widths(planned), *_updates(planned), *_calibrated(planned)]
    if isinstance(planned, NoPlan):
        return [_unfit(planned), *about]
    return [*_balance(planned), *_memory(planned), *_dense(planned), *_states(planned), *about]


def _unfit(failed: NoPlan) -> Finding:
    sizes = [
        f"the smallest shard of {name} takes {shown_bytes(failed.smallest[name])}"
        for name in failed.unfit
    ]
    if not sizes:
        sizes = [f"they take {shown_bytes(failed.needed)} of {shown_bytes(failed.capacity)}"]
    text = (
        f"nothing fits: {failed.reason}; {'; '.join(sizes)}, "
        f"and a rank has {shown_bytes(failed.room)} for tables"
    )
    return Finding(
        level="error",
        kind="nothing_fits",
        text=text,
        tables=failed.unfit,
        remedies=tuple(remedies(failed)),
    )


def _balance(planned: Planned) -> list[Finding]:
    busy = [load.total_ms for load in planned.ranks]
    mean = sum(busy) / len(busy)
    ratio = max(busy) / mean if mean else 1.0
    if ratio <= IMBALANCE:
        return []
    worst = planned.bottleneck
    return [
        Finding(
            level="warning",
            kind="imbalance",
            text=f"rank {worst.rank} works {ratio:.2f} times as long as the mean rank, most of it "
            f"on {worst.part.replace('_', ' ')} of {worst.table}: the others wait",
            tables=(worst.table,),
            remedies=tuple(even(planned)),
        )
    ]


def _memory(planned: Planned) -> list[Finding]:
    cluster = planned.request.cluster
    limit = cluster.hbm if cluster.device == "cuda" else cluster.rank_host_memory
    if limit is None:
        return []
    room = limit * (1 - RESERVED) if cluster.device == "cuda" else limit
    held = [x.hbm if cluster.device == "cuda" else x.host_memory for x in planned.ranks]
    if max(held) <= _FULL * room:
        return []
    return [
        Finding(
            level="warning",
            kind="memory",
            text=f"rank {held.index(max(held))} holds {shown_bytes(max(held))} of the "
            f"{shown_bytes(room)} that tables may take: little is left for larger batches",
        )
    ]


def _dense(planned: Planned) -> list[Finding]:
    tables = {table.name: table for table in planned.request.tables}
    found = []
    for placement in planned.placements:
        if placement.sharding_type != DATA_PARALLEL:
            continue
        table = tables[placement.table]
        ids = planned.request.batch_size * table.pooling * len(table.feature_names)
        touched = min(1.0, ids / table.rows)
        found.append(
            Finding(
                level="warning" if touched < 0.5 else "note",
                kind="dense_gradients",
                text=f"{table.name} is data_parallel: each step sums a dense gradient of "
                f"{shown_bytes(table.rows * table.row_bytes)} over all ranks, while a rank's "
                f"batch reads at most {touched:.1%} of its rows; the gradient takes as much memory "
                "again, which is not counted here",
                tables=(table.name,),
            )
        )
    return found


def _states(planned: Planned) -> list[Finding]:
    if planned.request.optimizer != "rowwise_adagrad":
        return []
    width = {table.name: table.dim for table in planned.request.tables}
    cut = tuple(
        placement.table
        for placement in planned.placements
        if any(columns < width[placement.table] for _, columns in placement.shards)
    )
    if not cut:
        return []
    return [
        Finding(
            level="note",
            kind="column_shards",
            text=f"{_listed(cut)}: rowwise_adagrad keeps one state a row in each column shard, "
            "so training differs slightly from whole rows, and a checkpoint is converted",
            tables=cut,
        )
    ]


def _widths(planned: Planned | NoPlan) -> list[Finding]:
    tables = planned.request.tables
    found = []
    if refused := [table for table in tables if table.dim % WIDTHS]:
        text = (
            f"{refused[0].dim} numbers wide; FBGEMM's fused tables are multiples of {WIDTHS} wide, "
            f"on every device. Use {_wider(refused[0])}"
        )
        found.append(_width("error", refused, text))
    if uneven := [table for table in tables if table.row_bytes % 16 and table not in refused]:
        text = (
            f"rows of {uneven[0].dim} {uneven[0].dtype} numbers are no multiple of 16 bytes, which "
            f"the kernels read at once. Use {_wider(uneven[0])}"
        )
        found.append(_width("warning", uneven, text))
    narrow = [table for table in tables if table.dim < _BLOCK]
    if narrow and planned.request.cluster.device == "cuda":
        text = (
            f"narrower than {_BLOCK} numbers, a quarter of a kernel's block; a lookup costs as "
            f"much as at {_BLOCK}"
        )
        found.append(_width("note", narrow, text))
    return found


def _width(level: Level, tables: Sequence[Table], text: str) -> Finding:
    names = tuple(table.name for table in tables)
    return Finding(level=level, kind="width", text=f"{_listed(names)}: {text}", tables=names)


def _updates(planned: Planned | NoPlan) -> list[Finding]:
    request = planned.request
    if request.cluster.device != "cpu":
        return []
    is_fast = request.optimizer == "rowwise_adagrad"
    slow = tuple(
        table.name
        for table in request.tables
        if not is_fast or table.dtype != "fp32" or len(table.feature_names) > 1
    )
    if not slow:
        return []
    return [
        Finding(
            level="note",
            kind="slow_update",
            text=f"{_listed(slow)}: FBGEMM updates their fused shards by a plain loop on one core; "
            "its kernel that uses vector instructions and all cores is for rowwise_adagrad on fp32 "
            "rows of a table that one feature reads",
            tables=slow,
        )
    ]


def _wider(table: Table) -> int:
    """The next width whose rows are a multiple of 16 bytes."""
    step = 16 * table.dim // table.row_bytes
    return -(-table.dim // step) * step


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _calibrated(planned: Planned | NoPlan) -> list[Finding]:
    known, cluster = planned.request.calibration, planned.request.cluster
    if known is None:
        text = (
            "times are by TorchRec's built-in constants, not measured: compare plans by them, and "
            "run flm plan calibrate on the cluster for milliseconds to rely on"
        )
    elif known.world_size != cluster.world_size:
        text = (
            f"the calibration was measured on {known.world_size} ranks: what {cluster.world_size} "
            "ranks exchange is extrapolated from it"
        )
    else:
        return []
    return [Finding(level="note", kind="calibration", text=text)]
