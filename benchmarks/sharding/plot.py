"""Points over two logarithmic axes, with the lines between them or a limit above them."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from flm_torchrec.evaluation.charts import WIDTH, figure
from flm_torchrec.evaluation.page import Markup, legend, text

_LEFT, _RIGHT, _TOP, _HEIGHT = 44, 14, 24, 190
_KINDS = 6  # colours that the page has


class Place(NamedTuple):
    """A point, in the units of the axes."""

    x: float
    y: float
    title: str  # shown where the pointer rests on it


def plot(
    caption: str,
    remark: str,
    series: Mapping[str, Sequence[Place]],
    *,
    axes: tuple[str, str],
    limit: Sequence[tuple[float, float]] = (),
    is_joined: bool = False,
) -> Markup:
    """Series of positive points, at least one in all; `limit` is a line that none should cross.

    A joined series has lines between its points, in their order. The names of several series stand
    below; colours come again with a ring, and dashed.
    """
    every = [place[:2] for places in series.values() for place in places] + list(limit)
    low = [min(_log(point[axis]) for point in every) for axis in (0, 1)]
    high = [max(_log(point[axis]) for point in every) for axis in (0, 1)]
    right, bottom = WIDTH - _RIGHT, _TOP + _HEIGHT

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = (high[0] - low[0]) or 1.0, (high[1] - low[1]) or 1.0
        return (
            _LEFT + (right - _LEFT) * (_log(x) - low[0]) / across,
            bottom - _HEIGHT * (_log(y) - low[1]) / up,
        )

    body = _frame(low, high, axes)
    body += "".join(_segment(at(*a), at(*b), "curve", dashed=True) for a, b in pairwise(limit))
    for place, points in enumerate(series.values()):
        ring = ' stroke="var(--ink)" stroke-width="1.5"' if place >= _KINDS else ""
        if is_joined:
            kind, again = f"curve line-{place % _KINDS}", place >= _KINDS
            body += "".join(
                _segment(at(*a[:2]), at(*b[:2]), kind, dashed=again) for a, b in pairwise(points)
            )
        for point in points:
            x, y = at(point.x, point.y)
            body += (
                f'<circle class="group-{place % _KINDS}" cx="{x:.1f}" cy="{y:.1f}" r="4"{ring}>'
                f"<title>{text(point.title)}</title></circle>"
            )
    names = legend("", _keys(series)) if len(series) > 1 else ""
    return figure(caption, remark, bottom + 34, body, below=names)


def _keys(series: Mapping[str, Sequence[Place]]) -> list[tuple[str, str]]:
    """The class and name of each series."""
    return [
        (f"group-{place % _KINDS}", name if place < _KINDS else f"{name} (ringed)")
        for place, name in enumerate(series)
    ]


def _log(value: float) -> float:
    return math.log10(value)


def _segment(
    start: tuple[float, float], end: tuple[float, float], kind: str, *, dashed: bool
) -> str:
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return (
        f'<polyline class="{kind}"{dashes} points="{start[0]:.1f},{start[1]:.1f} '
        f'{end[0]:.1f},{end[1]:.1f}"/>'
    )


def _frame(low: Sequence[float], high: Sequence[float], axes: tuple[str, str]) -> str:
    right, bottom = WIDTH - _RIGHT, _TOP + _HEIGHT
    ends = [[_tick(10 ** value[axis]) for value in (low, high)] for axis in (0, 1)]
    sides = "".join(
        f'<line class="rule" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{label}</text>'
        for y, label in zip((bottom, _TOP), ends[1], strict=True)
    )
    return (
        f'{sides}<text x="{_LEFT}" y="{bottom + 16}">{ends[0][0]}</text>'
        f'<text x="{right}" y="{bottom + 16}" text-anchor="end">{ends[0][1]}</text>'
        f'<text x="{(_LEFT + right) / 2}" y="{bottom + 30}" text-anchor="middle">'
        f"{text(axes[0])} &rarr;</text>"
        f'<text x="{_LEFT}" y="{_TOP - 10}">&uarr; {text(axes[1])}</text>'
    )


def _tick(value: float) -> str:
    """Three digits: 0.0198, 2, 47.3k, 175M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * unit:
            return f"{float(f'{value:.3g}') / unit:g}{letter}"
    return f"{value:.3g}"
