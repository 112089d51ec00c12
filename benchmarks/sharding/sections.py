"""The parts of the sharding benchmark's page, each chart with its numbers beside."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flm_benchmarks.sharding.cells import (
    FIGURES,
    REASONS,
    SETTING,
    figure_cells,
    measured,
    median_ms,
    named,
    reasons,
    setting_cells,
    short,
    step_time,
)
from flm_benchmarks.sharding.lines import Line, busy, machine_key, plan_name, ranks_of
from flm_benchmarks.sharding.plot import Place, plot
from flm_benchmarks.sharding.point import ABLATION

from flm_torchrec.evaluation.charts import bars, grid
from flm_torchrec.evaluation.page import Markup, bold, folded, section, table, text
from flm_torchrec.planning.fit import median_error, rank_correlation

Cases = Mapping[str, Sequence[Line]]
FEW = 30  # repeats below which a percentile says little
_OPEN = 40  # rows of a table that are shown at once
_CUT = 4  # times the fastest step, where its bar is cut


def cases(lines: Sequence[Line], *, with_ranks: bool) -> dict[str, list[Line]]:
    """Lines that differ in their plan alone, or also in the number of ranks, by their name."""
    found: dict[str, dict[str, Any]] = {}
    for line in measured(lines):
        setting = line["setting"]
        point = setting["point"]
        name, _, _, *rest = setting_cells(line)
        dtype, batch, rows_told, pooling, ids = rest
        label = f"{name}, {dtype}, batch {batch}, rows {rows_told}, pooling {pooling}, {ids} ids"
        label += f", {ranks_of(line)}" if with_ranks else ""
        what = {key: point[key] for key in ("dtype", "batch_size", "rows", "pooling", "ids")}
        kept = [what, setting["tables"], setting["optimizer"]]
        if with_ranks:
            kept += [ranks_of(line), machine_key(line["machine"])]
        else:  # more ranks of one host have fewer threads each
            kept.append(machine_key(line["machine"], apart_from=("system", "threads_per_rank")))
        group = found.setdefault(json.dumps(kept, sort_keys=True), {"label": label, "lines": []})
        group["lines"].append(line)
    return named((group["label"], group["lines"]) for group in found.values())


def by_plan(lines: Sequence[Line]) -> Markup:
    """Step time of each plan, the fastest first."""
    figures, rows = [], []
    for label, own in cases(lines, with_ranks=True).items():
        ranked = sorted(own, key=median_ms)
        values = [(_short_plan(line), median_ms(line)) for line in ranked]
        most = _CUT * values[0][1]
        if len(values) > 1:
            figures.append(bars(label, "ms a step, median", values, ours=values[0][0], most=most))
        rows += [
            [label, _short_plan(line), plan_name(line), step_time(line), _times(line, ranked[0])]
            for line in ranked
        ]
    head = ["case", "bar", "plan", FIGURES[0], "of the fastest"]
    return section("Step time by plan", grid(figures), _table(head, _once(rows), numbers=(3, 4)))


def scaling(lines: Sequence[Line]) -> Markup:
    """Samples/s of each plan over the world sizes that were measured."""
    figures, rows = [], []
    for label, own in cases(lines, with_ranks=False).items():
        plans: dict[str, dict[int, Line]] = {}
        for line in own:
            plans.setdefault(plan_name(line), {})[line["setting"]["world_size"]] = line
        several = {name: found for name, found in plans.items() if len(found) > 1}
        series = {}
        for name, found in several.items():
            sizes = sorted(found)
            first = _rate(found[sizes[0]]) / sizes[0]
            series[_short_plan(found[sizes[0]])] = [
                Place(size, _rate(found[size]), f"{name}, {ranks_of(found[size])}")
                for size in sizes
            ]
            for size in sizes:
                spread = found[size]["figures"]["samples_per_s"]
                told = f"{short(spread['median'])} ({short(spread['p10'])}-{short(spread['p90'])})"
                share = f"{_rate(found[size]) / size / first:.0%}"
                threads = found[size]["machine"]["threads_per_rank"]
                rows.append([label, name, size, threads, told, share])
        if series:
            axes = ("ranks", "samples/s")
            figures.append(plot(label, "same batch", series, axes=axes, is_joined=True))
    if not rows:
        note = table((), [["No plan was measured at more than one number of ranks."]])
        return section("Scaling by world size", note)
    head = ["case", "plan", "ranks", "threads of each", "samples/s", "of linear"]
    return section(
        "Scaling by world size", grid(figures), _table(head, _once(rows), numbers=(2, 3, 4, 5))
    )


def predictions(lines: Sequence[Line]) -> Markup:
    """The planner's step time against the one measured."""
    found = [line for line in measured(lines) if line["figures"].get("predicted")]
    found = [line for line in found if line["figures"]["predicted"]["step_ms"] > 0]
    if not found:
        return section("Predicted against measured", table((), [["Nothing was predicted."]]))
    pairs = np.array([[_predicted(line), median_ms(line)] for line in found])
    error = median_error(*pairs.T)
    series: dict[str, list[Place]] = {}
    for line in found:
        place = Place(_predicted(line), median_ms(line), f"{plan_name(line)}, {step_time(line)} ms")
        series.setdefault(line["setting"]["point"]["sharding"], []).append(place)
    low, high = float(pairs.min()), float(pairs.max())
    rows = []
    for line in found:
        ratio = f"{_predicted(line) / median_ms(line):.2g}x"
        rows.append([*setting_cells(line), short(_predicted(line)), step_time(line), ratio])
    remark = f"median relative error {error:.0%}, rank correlation {rank_correlation(*pairs.T):.2f}"
    axes = ("predicted ms", "measured ms")
    diagonal = [(low, low), (high, high)]
    return section(
        "Predicted against measured",
        grid([plot("Step time", remark, series, axes=axes, limit=diagonal)]),
        _table([*SETTING, "predicted ms", FIGURES[0], "predicted / measured"], rows),
    )


def roofline(lines: Sequence[Line]) -> Markup:
    """Table traffic against the speed at which this machine copies memory."""
    found = measured(lines)
    series: dict[str, list[Place]] = {}
    rows = []
    for line in found:
        figures = line["figures"]
        speed, share = figures["table_bytes_per_s"], figures["share_of_copy"]
        series.setdefault(line["setting"]["point"]["sharding"], []).append(
            Place(figures["table_bytes"], speed["median"] / 1e9, plan_name(line))
        )
        cells = [
            short(figures["table_bytes"] / 1e6),
            _spread(speed, 1e-9),
            _spread(figures["copy_bytes_per_s"], 1e-9),
            f"{share['median']:.1%}",
        ]
        rows.append([*setting_cells(line), *cells])
    moved = [line["figures"]["table_bytes"] for line in found]
    ceiling = max(line["figures"]["copy_bytes_per_s"]["median"] for line in found) / 1e9
    limit = [(min(moved), ceiling), (max(moved), ceiling)]
    axes = ("bytes of table rows a step", "GB/s")
    remark = f"copying memory reaches {ceiling:.2f} GB/s"
    head = [*SETTING, "MB a step", "table GB/s", "copy GB/s", "of copy speed"]
    return section(
        "Roofline: table traffic under the speed of copying",
        grid([plot("Table traffic", remark, series, axes=axes, limit=limit)]),
        _table(head, rows),
    )


def ablation(lines: Sequence[Line]) -> Markup:
    """What each optimisation adds to those before it, also where it adds nothing."""
    title, figures, rows = "What each optimisation adds", [], []
    for label, own in cases(lines, with_ranks=True).items():
        found = {plan_name(line): line for line in own}
        steps = [(name, found.get(" ".join(plan))) for name, *plan in ABLATION]
        if sum(line is not None for _, line in steps) < 2:
            continue
        before, first = None, None
        for name, line in steps:
            if line is None:
                rows.append([label, name, "not measured", None, None])
                continue
            gains = [None if other is None else _times(other, line) for other in (before, first)]
            rows.append([label, name, step_time(line), *gains])
            before, first = line, first or line
        values = [(name, median_ms(line)) for name, line in steps if line is not None]
        figures.append(bars(label, "ms a step, median", values))
    if not rows:
        note = "Too few of its steps were measured; --ablation measures them."
        return section(title, table((), [[note]]))
    head = ["case", "", FIGURES[0], "faster than the row above", "than the first"]
    return section(title, grid(figures), _table(head, _once(rows), numbers=(2, 3, 4)))


def everything(lines: Sequence[Line]) -> Markup:
    """Every figure of every line."""
    rows = [setting_cells(line) + figure_cells(line) for line in measured(lines)]
    return section("All figures", _table([*SETTING, *FIGURES], rows))


def without_figures(lines: Sequence[Line]) -> Markup:
    """What could not be measured, and why."""
    rows = [
        [reason, status, len(points), _points(points)] for reason, status, points in reasons(lines)
    ] or [["everything was measured", "", "", ""]]
    return section("Not measured", table(REASONS, rows, numbers=(2,)))


def circumstances(lines: Sequence[Line]) -> list[Markup]:
    """Machines, versions, repeats and tables."""
    machines = {machine_key(line["machine"]): line for line in lines}
    body = []
    for line in machines.values():
        facts = {**line["machine"], **line["versions"]}
        body.append(table((), facts.items()))
    repeats = sorted({line["setting"]["steps"] for line in lines})
    notes = [["repeats of a figure", repeats], ["first line", lines[0]["time"]]]
    by = {line["setting"]["calibration"] for line in lines}
    costs = [f"the calibration of {each}" if each else "TorchRec's constants" for each in by]
    notes.append(["planned and predicted by", ", ".join(sorted(costs))])
    if repeats[0] < FEW:
        notes.append([bold("few repeats"), f"below {FEW} the percentiles say little"])
    if remark := busy(lines):
        notes.append([bold("busy"), remark])
    tables = {
        f"{line['setting']['name']} {json.dumps(line['setting']['tables'])}": line for line in lines
    }
    rows = [
        [line["setting"]["name"], each["name"], each["rows"], each["dim"], each["pooling"]]
        for line in tables.values()
        for each in line["setting"]["tables"]
    ]
    return [
        section("Machine and versions", *body, table((), notes)),
        section(
            "Tables",
            _table(["of", "table", "rows", "width", "ids a bag"], rows, numbers=(2, 3, 4)),
        ),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], **kinds: Any) -> Markup:
    """A table that is folded where it is long."""
    whole = table(head, rows, **kinds)
    return whole if len(rows) <= _OPEN else folded(f"table of {len(rows)} rows", whole)


def _once(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """With the first cell of a row empty where the row above has the same."""
    before = [None, *(row[0] for row in rows[:-1])]
    return [
        ["" if row[0] == last else row[0], *row[1:]] for row, last in zip(rows, before, strict=True)
    ]


def _points(names: Sequence[str]) -> str:
    """One as it is, of several the first, with all where a reader asks for them."""
    if len(names) == 1:
        return names[0]
    return folded(f"{names[0]}, and {len(names) - 1} more", Markup(text("; ".join(names[1:]))))


def _spread(values: Mapping[str, float], factor: float) -> str:
    middle, low, high = (short(factor * values[name]) for name in ("median", "p10", "p90"))
    return f"{middle} ({low}-{high})"


def _times(line: Line, other: Line) -> str:
    return f"{median_ms(line) / median_ms(other):.2f}x"


def _predicted(line: Line) -> float:
    return line["figures"]["predicted"]["step_ms"]


def _rate(line: Line) -> float:
    return line["figures"]["samples_per_s"]["median"]


_SHORT = {
    "data_parallel": "dp",
    "table_wise": "tw",
    "column_wise": "cw",
    "row_wise": "rw",
    "table_row_wise": "twrw",
    "table_column_wise": "twcw",
    "grid_shard": "grid",
    "fused_uvm": "uvm",
    "fused_uvm_caching": "cache",
    "key_value": "kv",
    "quant": "int",
    "fused_sparse_dist": "fsd",
    "semi_sync": "semi",
    "prefetch": "pre",
    **dict.fromkeys(("dense", "fused", "sparse_dist"), ""),  # the usual ones
}


def _short_plan(line: Line) -> str:
    """Short enough for a chart, and told in full in the table below."""
    point = line["setting"]["point"]
    parts = [point["sharding"], point["kernel"], point["pipeline"]]
    return " ".join(filter(None, (_SHORT.get(part, part) for part in parts)))
