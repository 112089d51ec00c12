"""Plans told as lines, as JSON and as one self-contained HTML page."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flm_torchrec.evaluation import charts, page
from flm_torchrec.planning.alternatives import Remedy
from flm_torchrec.planning.cluster import shown_bytes
from flm_torchrec.planning.findings import Finding
from flm_torchrec.planning.plan import NoPlan, Planned

_FORMAT, _VERSION = "flm-plan", 1
_MOST_RANKS = 16  # that are listed one by one


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one world size."""

    plan: Planned | NoPlan
    families: dict[str, Planned | NoPlan]
    findings: list[Finding]

    @property
    def world_size(self) -> int:
        """Ranks."""
        return self.plan.request.cluster.world_size


def _setting(name: str, outcome: Outcome) -> str:
    request = outcome.plan.request
    cluster = request.cluster
    costs = "measured costs" if request.calibration else "TorchRec's built-in costs"
    sent = "" if request.communication == "fp32" else f", rows sent as {request.communication}"
    return (
        f"{name}: {len(request.tables)} tables on {cluster.world_size} {cluster.device} ranks, "
        f"{cluster.local_world_size} a host; {request.batch_size} samples a rank, "
        f"{request.optimizer}{sent}; {costs}"
    )


def lines(name: str, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """All that a reader of a terminal wants."""
    for outcome in outcomes:
        plan = outcome.plan
        yield _setting(name, outcome)
        if isinstance(plan, Planned):
            yield from _planned(plan)
            yield from _others(outcome)
        yield ""
        yield from (line for finding in outcome.findings for line in _finding(finding, plan))
        yield ""
    if len(outcomes) > 1:
        yield from _columns(
            [("ranks", "step ms", "samples/s")]
            + [(f"{size}", ms, rate) for size, ms, rate in _scaling(outcomes)]
        )


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _planned(plan: Planned) -> list[str]:
    worst = plan.bottleneck
    return [
        "",
        *_columns([_PLACED, *_placements(plan)]),
        "",
        *_columns([_RANKED, *_rank_rows(plan)]),
        "",
        f"predicted step: {plan.step_ms:.3f} ms; rank {worst.rank} is busiest, with "
        f"{_word(worst.part)}, and there with {worst.table}"
        f" (best of {plan.proposals} proposals, planned in {plan.seconds:.1f} s)",
        f"in a run's YAML: sharding: {{{', '.join(map(': '.join, plan.sharding.items()))}}}",
    ]


_PLACED = ("table", "placed", "ranks", "shard", "memory", "slowest ms")
_RANKED = ("rank", "HBM", "host", "parts, ms", "all, ms")


def _placements(plan: Planned) -> list[tuple[str, ...]]:
    return [
        (
            placed.table,
            placed.told,
            _spans(placed.ranks),
            "{:,} x {}".format(*placed.shards[0]),
            shown_bytes(placed.hbm + placed.host_memory),
            f"{placed.slowest_ms:.4f}",
        )
        for placed in plan.placements
    ]


def _spans(ranks: Sequence[int]) -> str:
    """0-7 for eight neighbours."""
    spans: list[list[int]] = []
    for rank in sorted(set(ranks)):
        if spans and spans[-1][-1] == rank - 1:
            spans[-1][1:] = [rank]
        else:
            spans.append([rank])
    told = ["-".join(map(str, span)) for span in spans]
    return ", ".join(told[:6]) + (f" and {len(told) - 6} more" if len(told) > 6 else "")


def _rank_rows(plan: Planned) -> list[tuple[str, ...]]:
    ranks = sorted(plan.ranks, key=lambda load: load.total_ms, reverse=True)[:_MOST_RANKS]
    if len(plan.ranks) <= _MOST_RANKS:
        ranks = list(plan.ranks)
    return [
        (
            str(load.rank),
            shown_bytes(load.hbm),
            shown_bytes(load.host_memory),
            ", ".join(f"{_word(name)} {ms:.3f}" for name, ms in load.parts_ms.items() if ms),
            f"{load.total_ms:.3f}",
        )
        for load in ranks
    ]


def _word(part: str) -> str:
    return part.replace("_", " ")


def _others(outcome: Outcome) -> list[str]:
    told = ["", "all tables in one way:"]
    told += [f"  {kind:<18} {figure}" for kind, figure in _families(outcome)]
    assert isinstance(outcome.plan, Planned)
    if outcome.plan.runners_up:
        told += ["next-best plans:"]
    for other in outcome.plan.runners_up:
        told += [f"  {other.step_ms:.3f} ms  {_difference(other.differs)}"]
    return told


def _difference(differs: dict[str, str]) -> str:
    pairs = [f"{table} {how}" for table, how in differs.items()]
    return ", ".join(pairs[:6]) + (f" and {len(pairs) - 6} more" if len(pairs) > 6 else "")


def _families(outcome: Outcome) -> list[tuple[str, str]]:
    return [
        (kind, f"{plan.step_ms:.3f} ms" if isinstance(plan, Planned) else f"- {plan.reason}")
        for kind, plan in outcome.families.items()
    ]


def _finding(finding: Finding, plan: Planned | NoPlan) -> Iterator[str]:
    yield f"{finding.level}: {finding.text}"
    for remedy in finding.remedies:
        yield f"  {_remedy(remedy, plan)}"


def _scaling(outcomes: Sequence[Outcome]) -> list[tuple[int, str, str]]:
    rows = []
    for outcome in outcomes:
        plan = outcome.plan
        if isinstance(plan, Planned):
            samples = plan.request.batch_size * outcome.world_size / plan.step_ms * 1000
            rows.append((outcome.world_size, f"{plan.step_ms:.3f}", f"{samples:,.0f}"))
        else:
            rows.append((outcome.world_size, "-", "nothing fits"))
    return rows


def as_json(name: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything, ready to be written."""
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "name": name,
        "plans": [_entry(outcome) for outcome in outcomes],
    }


def _entry(outcome: Outcome) -> dict[str, Any]:
    plan, request = outcome.plan, outcome.plan.request
    entry: dict[str, Any] = {
        "cluster": asdict(request.cluster),
        "batch_size": request.batch_size,
        "optimizer": request.optimizer,
        "communication": request.communication,
        "types": request.types,
        "constraints": dict(request.constraints),
        "calibrated": request.calibration is not None,
        "fits": isinstance(plan, Planned),
    }
    if isinstance(plan, Planned):
        entry |= {
            "step_ms": plan.step_ms,
            "sharding": plan.sharding,
            "placements": [asdict(placed) for placed in plan.placements],
            "ranks": [asdict(load) for load in plan.ranks],
            "bottleneck": asdict(plan.bottleneck),
            "runners_up": [asdict(other) for other in plan.runners_up],
            "families": {
                kind: {"step_ms": other.step_ms}
                if isinstance(other, Planned)
                else {"reason": other.reason}
                for kind, other in outcome.families.items()
            },
            "proposals": plan.proposals,
        }
    else:
        entry |= {name: getattr(plan, name) for name in ("reason", "unfit", "needed", "capacity")}
    findings = [asdict(finding) for finding in outcome.findings]
    return entry | {"planning_seconds": plan.seconds, "findings": findings}


def page_of(name: str, outcomes: Sequence[Outcome]) -> str:
    """The HTML page."""
    body = []
    points = [(o.world_size, o.plan.step_ms) for o in outcomes if isinstance(o.plan, Planned)]
    if len(outcomes) > 1:
        table = page.table(
            ("Ranks", "Step, ms", "Samples/s"), _scaling(outcomes), numbers=(0, 1, 2)
        )
        figures = [charts.bars("Predicted step", "ms by ranks", _named(points))] if points else []
        if len(points) > 1:
            figures.append(_curve(points))
        body.append(page.section("By world size", table, charts.grid(figures)))
    body += [section for outcome in outcomes for section in _sections(name, outcome)]
    return page.page(f"Plan of {name}", body)


def _named(points: Sequence[tuple[int, float]]) -> list[tuple[str, float]]:
    return [(f"{size} ranks", ms) for size, ms in points]


def _curve(points: Sequence[tuple[int, float]]) -> page.Markup:
    return charts.curve("Predicted step, ms, by ranks", points, unit="ranks")


def _sections(name: str, outcome: Outcome) -> list[page.Markup]:
    plan = outcome.plan
    told = [page.alarm(plan.reason)] if isinstance(plan, NoPlan) else []
    rows = [(f.level, f.text, [_remedy(r, plan) for r in f.remedies]) for f in outcome.findings]
    sections = [
        page.section(
            f"{outcome.world_size} ranks",
            page.subtitle(_setting(name, outcome)),
            *told,
            page.table(("Level", "Finding", "Remedies tried"), rows),
        )
    ]
    if not isinstance(plan, Planned):
        return sections
    parts = max(plan.ranks, key=lambda load: load.total_ms).parts_ms
    families = [(k, p.step_ms) for k, p in outcome.families.items() if isinstance(p, Planned)]
    others = [(f"{o.step_ms:.3f}", _difference(o.differs)) for o in plan.runners_up]
    sections[0] = page.Markup(
        sections[0]
        + page.tiles(
            [
                ("Predicted step", f"{plan.step_ms:.3f} ms", ""),
                ("Slowest rank", plan.bottleneck.rank, _word(plan.bottleneck.part)),
                ("Table", plan.bottleneck.table, "takes most of it"),
            ]
        )
        + charts.grid(
            [
                charts.bars("Parts", "ms on the slowest rank", [*_words(parts)]),
                charts.bars(
                    "All tables in one way", "ms", [("this plan", plan.step_ms), *families]
                ),
            ]
        )
    )
    sections += [
        page.section("Tables", page.table(_PLACED, _placements(plan))),
        page.section("Ranks", page.table(_RANKED, _rank_rows(plan))),
    ]
    if others:
        sections.append(page.section("Next-best plans", page.table(("ms", "Differs"), others)))
    return sections


def _words(parts: dict[str, float]) -> Iterator[tuple[str, float]]:
    return ((_word(name), ms) for name, ms in parts.items())


def _remedy(remedy: Remedy, plan: Planned | NoPlan) -> str:
    ms = remedy.step_ms
    does = "still nothing fits" if ms is None else f"fits, a step takes {ms:.3f} ms"
    if ms is not None and isinstance(plan, Planned) and ms >= plan.step_ms:
        does += f", no less than the plan's {plan.step_ms:.3f} ms"
    return f"{remedy.change}: {does}"
