"""How a step's time grows with the batch and with the rows of the tables: the page's section."""

from collections.abc import Sequence
from dataclasses import dataclass

from flm_benchmarks.sharding.cells import apart_in, median_ms, named, short, step_time
from flm_benchmarks.sharding.lines import Line, plan_name, ranks_of
from flm_benchmarks.sharding.plot import Place, plot

from flm_torchrec.evaluation.charts import grid
from flm_torchrec.evaluation.page import Markup, section, table
from flm_torchrec.planning.fit import nonnegative

_WHAT = {"batch_size": "batch", "rows": "rows of each table"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """A step's time over the batch: `fixed_ms + sample_us * batch / 1000`, fitted in relative
    terms."""

    name: str
    rows: int | None  # of every table; None: each its own
    fixed_ms: float
    sample_us: float
    lookup_ns: float  # the same by lookup


def growths(lines: Sequence[Line]) -> list[Growth]:
    """Of all lines that differ in nothing but the batch, where there are at least three."""
    found = []
    for name, own in _series(lines, "batch_size").items():
        if len(own) < 3:
            continue
        batches = [line["setting"]["point"]["batch_size"] for line in own]
        fixed, sample = nonnegative([[1.0, batch] for batch in batches], [*map(median_ms, own)])
        lookups = own[-1]["figures"]["lookups_per_s"]["median"]
        a_sample = lookups / own[-1]["figures"]["samples_per_s"]["median"]
        found.append(
            Growth(
                name=name,
                rows=own[0]["setting"]["point"]["rows"],
                fixed_ms=fixed,
                sample_us=1e3 * sample,
                lookup_ns=1e6 * sample / a_sample,
            )
        )
    return found


def growth(lines: Sequence[Line]) -> Markup:
    """Step time against the batch and against the rows, where lines differ in those alone."""
    figures = []
    for key, axis in _WHAT.items():
        series = {
            name: [
                Place(_value(line, key), median_ms(line), f"{name}: {step_time(line)}")
                for line in own
            ]
            for name, own in _series(lines, key).items()
            if len(own) > 1
        }
        if not series:
            continue
        axes = (axis, "ms a step")
        figures.append(plot(f"Step time by {axis}", "median", series, axes=axes, is_joined=True))
    if not figures:
        note = "No two lines differ in the batch or the rows alone."
        return section("Growth", table((), [[note]]))
    rows = [
        [found.name, *map(short, (found.fixed_ms, found.sample_us, found.lookup_ns))]
        for found in growths(lines)
    ]
    head = ["over the batch", "fixed ms", "us a sample more", "ns a lookup more"]
    fits = [table(head, rows, numbers=(1, 2, 3))] if rows else []
    return section("Growth", grid(figures), *fits)


def _series(lines: Sequence[Line], key: str) -> dict[str, list[Line]]:
    """Lines that differ in `key` of their point alone, in its order, by a name."""
    given = [line for line in lines if line["setting"]["point"][key] is not None]
    groups = apart_in(given, key)
    series = [sorted(own, key=lambda line: _value(line, key)) for own in groups]
    return named((_name(own[0], key), own) for own in series)


def _name(line: Line, key: str) -> str:
    setting = line["setting"]
    point = setting["point"]
    told = [setting["name"], plan_name(line), point["dtype"]]
    told += [f"{_WHAT[other]} {point[other]}" for other in _WHAT if other != key and point[other]]
    told += [f"pooling {point['pooling']:g}"] if point["pooling"] is not None else []
    return ", ".join([*told, f"{point['ids']} ids", ranks_of(line)])


def _value(line: Line, key: str) -> int:
    return line["setting"]["point"][key]
