"""The report of a run: report.json for programs, report.html for people.

Example:
    write_report(Path("runs/demo"), {"test": {"ndcg@10": 0.123}, "baselines": {"ease": {...}}})
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flm_torchrec.errors import UserError
from flm_torchrec.evaluation.charts import bars, curve, grid
from flm_torchrec.evaluation.item_map import ITEM_MAP, read_item_map
from flm_torchrec.evaluation.page import (
    Markup,
    bold,
    number,
    page,
    section,
    subtitle,
    table,
    tiles,
    verdict,
)
from flm_torchrec.evaluation.representation import diagnostics_section, map_section
from flm_torchrec.files import atomic_file

OURS = "FLM"
_LOWER_IS_BETTER = ("rmse", "mae", "log_loss")
_HEADLINE = ("ndcg@10", "hr@10", "recall@20", "mrr@10")
_SHOWN_CURVES = (
    *("loss/", "validation/ndcg@", "validation/auc", "fusion/"),
    *("view/", "grad_cosine/"),
)
_SECTIONED = {"test", "baselines", "domains", "checks", "tasks", "plan", "diagnostics", "collapses"}
_FACTS = ("data", "seconds", "machine", "versions")


def plain(value: Any) -> Any:
    """What JSON can hold: six significant digits, null for nan and infinities."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"report: {type(value).__name__} can't be written as JSON: {value!r}")


def read_log(file: Path) -> dict[str, list[tuple[int, float]]]:
    """log.jsonl -> (step, finite value) by name, in the order of the steps.

    After a resumed run a step may stand twice: the later line counts.
    """
    series: dict[str, dict[int, float]] = {}
    for place, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{file}, line {place}: {line!r} is not JSON ({error.msg})") from error
        for name, value in entry.items():
            if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                series.setdefault(name, {})[int(entry["step"])] = float(value)
    return {name: sorted(points.items()) for name, points in series.items()}


def _is_lower_better(metric: str) -> bool:
    return metric.startswith(_LOWER_IS_BETTER)


def _best(metric: str, values: Sequence[float]) -> float:
    return min(values) if _is_lower_better(metric) else max(values)


def _quality_section(report: Mapping[str, Any]) -> Markup:
    models = {OURS: report.get("test", {}), **report.get("baselines", {})}
    measured: dict[str, dict[str, float]] = {}  # metric -> model -> value
    for model, row in models.items():
        for metric, value in row.items():
            if value is not None:
                measured.setdefault(metric, {})[model] = value

    def is_judged(metric: str) -> bool:
        # Coverage describes; more of it is not better in itself.
        return len(measured[metric]) > 1 and not metric.startswith("coverage")

    def cell(metric: str, model: str) -> Any:
        values = measured[metric]
        is_best = is_judged(metric) and values.get(model) == _best(metric, list(values.values()))
        return bold(values[model]) if is_best else values.get(model)

    names = [model for model in models if models[model]]
    rows = [[metric, *(cell(metric, model) for model in names)] for metric in measured]
    charted = [name for name in _HEADLINE if name in measured and is_judged(name)]
    charted += [name for name in measured if name not in charted and is_judged(name)]
    figures = [
        bars(
            metric,
            "lower is better" if _is_lower_better(metric) else "higher is better",
            list(measured[metric].items()),
            ours=OURS,
        )
        for metric in charted
    ]
    ours = 1 if names[:1] == [OURS] else None
    return section(
        "Test quality against the baselines",
        table(["", *names], rows, numbers=range(1, len(names) + 1), ours=ours),
        grid(figures),
    )


def _domains_section(domains: Mapping[str, Mapping[str, float | None]]) -> Markup:
    metrics = dict.fromkeys(metric for own in domains.values() for metric in own)
    rows = [[metric, *(own.get(metric) for own in domains.values())] for metric in metrics]
    numbers = range(1, len(domains) + 1)
    return section("Test quality in each domain", table(["", *domains], rows, numbers=numbers))


def _checks_section(checks: Sequence[Mapping[str, Any]]) -> Markup:
    rows = [
        [check["name"], verdict(check["passed"]), check.get("value"), check.get("bound")]
        for check in checks
    ]
    return section("Checks", table(["check", "", "value", "bound"], rows, numbers=(2, 3)))


def _tasks_section(tasks: Mapping[str, Mapping[str, float | None]]) -> Markup:
    def row(name: str, ends: Mapping[str, float | None]) -> list[Any]:
        first, last = ends.get("first"), ends.get("last")
        change = None if not first or last is None else f"{(last - first) / abs(first):+.1%}"
        return [name, first, last, change]

    rows = [row(name, ends) for name, ends in tasks.items()]
    return section("Losses", table(["task", "first", "last", "change"], rows, numbers=(1, 2, 3)))


def _curves_section(folder: Path) -> list[Markup]:
    body = []
    for file in sorted([*folder.glob("log.jsonl"), *folder.glob("*/log.jsonl")]):
        series = read_log(file)
        shown = [name for name in series if name.startswith(_SHOWN_CURVES)]
        if shown and file.parent != folder:
            body.append(subtitle(file.parent.name))
        body += [grid([curve(name, series[name]) for name in shown])] if shown else []
    return [section("Curves", *body)] if body else []


def _map_sections(folder: Path) -> list[Markup]:
    files = [folder / ITEM_MAP, *sorted(folder.glob(f"*/{ITEM_MAP}"))]
    return [
        map_section(read_item_map(file), of="" if file.parent == folder else file.parent.name)
        for file in files
        if file.exists()
    ]


def _plan_section(plan: Sequence[Mapping[str, Any]]) -> Markup:
    columns = list(dict.fromkeys(column for row in plan for column in row))
    rows = [[row.get(column) for column in columns] for row in plan]
    return section("Where each table lies", table(columns, rows))


def _facts_section(name: str, facts: Any) -> Markup:
    pairs = facts.items() if isinstance(facts, Mapping) else [("", facts)]
    return section(name.replace("_", " ").capitalize(), table((), pairs))


def _summary(report: Mapping[str, Any]) -> Markup:
    entries: list[tuple[str, Any, Any]] = []
    ours = report.get("test", {}).get(_HEADLINE[0])
    rivals = {
        name: row[_HEADLINE[0]]
        for name, row in report.get("baselines", {}).items()
        if row.get(_HEADLINE[0])
    }
    if ours is not None:
        best = max(rivals, key=lambda name: rivals[name], default=None)
        remark = "" if best is None else f"{ours / rivals[best]:.2f} times {best}"
        entries.append(("Test NDCG@10", ours, remark))
    if "checks" in report:
        passed = [bool(check["passed"]) for check in report["checks"]]
        entries.append(("Checks passed", f"{sum(passed)} of {len(passed)}", verdict(all(passed))))
    if (total := report.get("seconds", {}).get("total")) is not None:
        entries.append(("Time", f"{total / 60:.1f} min", f"{number(total)} seconds"))
    if "world_size" in report:
        entries.append(("Ranks", report["world_size"], ""))
    return tiles(entries)


def render(folder: Path, report: Mapping[str, Any]) -> str:
    """The page of a plain `report`, with the item maps and the curves of the logs in `folder` and
    just below it."""
    body = [_summary(report)]
    if "test" in report or "baselines" in report:
        body.append(_quality_section(report))
    if "domains" in report:
        body.append(_domains_section(report["domains"]))
    if "checks" in report:
        body.append(_checks_section(report["checks"]))
    if "tasks" in report:
        body.append(_tasks_section(report["tasks"]))
    if "diagnostics" in report:
        collapses = report.get("collapses", [])
        body.append(diagnostics_section(report["diagnostics"], collapses))
    body += _map_sections(folder)
    body += _curves_section(folder)
    if "plan" in report:
        body.append(_plan_section(report["plan"]))
    rest = [name for name in report if name not in {*_SECTIONED, *_FACTS, "world_size"}]
    body += [
        _facts_section(name, report[name])
        for name in [*rest, *_FACTS]
        if name in report and report[name] != {}
    ]
    return page(f"FLM report: {folder.resolve().name}", body)


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write report.json and report.html into `folder`, each at once; only rank 0 should.

    Every key lands in report.json. The page has a section for each key that is there, and curves
    where there is a log.jsonl.
    """
    entries = plain(report)
    document = json.dumps(entries, indent=2, ensure_ascii=False, allow_nan=False)
    for name, content in (
        ("report.json", document + "\n"),
        ("report.html", render(folder, entries)),
    ):
        with atomic_file(folder / name) as file:
            file.write_text(content, encoding="utf-8")
