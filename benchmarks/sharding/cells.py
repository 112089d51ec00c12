"""A line of the sharding benchmark as the cells of a table, each figure with its spread."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flm_benchmarks.sharding.lines import Line, machine_key, plan_name, ranks_of
from flm_benchmarks.sharding.timing import PHASES

SETTING = ("tables", "ranks", "plan", "dtype", "batch", "rows", "pooling", "ids")
FIGURES = (
    "step ms p50 / p90 / p99",
    "ids in ms",
    "forward ms",
    "rows out ms",
    "backward + update ms",
    "k samples/s",
    "M lookups/s",
    "table GB/s",
    "of copy speed",
    "sent MB by rank",
    "imbalance",
    "peak GiB by rank",
    "predicted ms",
)


def measured(lines: Sequence[Line]) -> list[Line]:
    """Those with figures."""
    return [line for line in lines if line["status"] == "measured"]


def apart_in(lines: Sequence[Line], key: str) -> list[list[Line]]:
    """Groups of those with figures that differ in `key` of their point alone."""
    groups: dict[str, list[Line]] = {}
    for line in measured(lines):
        setting = line["setting"]
        rest: dict[str, Any] = {**setting, "point": {**setting["point"], key: None}}
        kept = json.dumps(rest, sort_keys=True) + machine_key(line["machine"])
        groups.setdefault(kept, []).append(line)
    return list(groups.values())


def setting_cells(line: Line) -> list[str]:
    """What was measured."""
    setting = line["setting"]
    point = setting["point"]
    pooling = "own" if point["pooling"] is None else f"{point['pooling']:g}"
    return [
        setting["name"],
        str(setting["world_size"]),
        plan_name(line),
        point["dtype"],
        str(point["batch_size"]),
        "own" if point["rows"] is None else str(point["rows"]),
        pooling,
        point["ids"],
    ]


def figure_cells(line: Line) -> list[str]:
    """What came of it; a range in brackets is that of the tenth to the ninetieth percentile."""
    figures = line["figures"]
    phases = figures["phases"]
    predicted = figures.get("predicted")
    times = [_time(phases[name]) if name in phases else "-" for name in PHASES]
    return [
        step_time(line),
        *times,
        _ranged(figures["samples_per_s"], 1e-3),
        _ranged(figures["lookups_per_s"], 1e-6),
        _ranged(figures["table_bytes_per_s"], 1e-9),
        _ranged(figures["share_of_copy"], 100, "%"),
        " ".join(_sent(rank) for rank in figures["sent_bytes"]),
        _ranged(figures["imbalance"], 1),
        " ".join(f"{peak / 2**30:.2f}" for peak in figures["peak_memory_bytes"]),
        "-" if predicted is None else f"{predicted['step_ms']:.3g}",
    ]


def median_ms(line: Line) -> float:
    """Of a step."""
    return line["figures"]["step"]["median_ms"]


def named(groups: Iterable[tuple[str, list[Line]]]) -> dict[str, list[Line]]:
    """Groups of lines by their names, which are numbered where they come again: other tables or
    another machine under the same words."""
    found: dict[str, list[Line]] = {}
    for name, lines in groups:
        own, place = name, 2
        while own in found:
            own, place = f"{name} ({place})", place + 1
        found[own] = lines
    return found


def step_time(line: Line) -> str:
    """Median, 90th and 99th percentile of the slowest rank, in ms."""
    step = line["figures"]["step"]
    told = " / ".join(short(step[name]) for name in ("median_ms", "p90_ms", "p99_ms"))
    return told if line["figures"]["passes"] != "forward only" else f"{told} (forward only)"


def short(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _time(phase: Mapping[str, float]) -> str:
    return f"{short(phase['median_ms'])} ({short(phase['p10_ms'])}-{short(phase['p90_ms'])})"


def _ranged(spread: Mapping[str, float], factor: float, unit: str = "") -> str:
    middle, low, high = (short(factor * spread[name]) for name in ("median", "p10", "p90"))
    return f"{middle}{unit} ({low}-{high})"


def _sent(rank: Mapping[str, float]) -> str:
    middle, least, most = (short(rank[name] / 1e6) for name in ("median", "least", "most"))
    return middle if least == most else f"{middle} ({least}-{most})"


REASONS = ("reason", "status", "points", "of them")


def reasons(lines: Sequence[Line]) -> list[tuple[str, str, list[str]]]:
    """Of the lines without figures, each reason once, with its status and all it concerns."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if line["status"] != "measured":
            rank = f" on rank {line['rank']}" if "rank" in line else ""
            found.setdefault((line["reason"], line["status"] + rank), []).append(_brief(line))
    return [(reason, status, points) for (reason, status), points in found.items()]


def _brief(line: Line) -> str:
    _, _, plan, dtype, batch, rows, pooling, ids = setting_cells(line)
    told = f"{plan} {dtype}, batch {batch}, rows {rows}, pooling {pooling}, {ids}"
    return f"{told}, {ranks_of(line)}"
