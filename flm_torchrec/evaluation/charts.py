"""Bars, curves and maps as SVG figures that take their colours from the page."""

from collections.abc import Sequence
from typing import NamedTuple

from flm_torchrec.evaluation.page import Markup, number, text

WIDTH = 320
_LEFT, _RIGHT, _TOP, _HEIGHT = 52, 10, 10, 110  # of a curve's plot
_MOST_POINTS = 300


def figure(caption: str, remark: str, height: float, body: str, *, below: str = "") -> Markup:
    """A drawing, WIDTH wide, with its caption above and what stands `below` it."""
    return Markup(
        f"<figure><figcaption>{text(caption)} <span>{text(remark)}</span></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{text(caption)}">'
        f"{body}</svg>{below}</figure>"
    )


def bars(
    caption: str,
    remark: str,
    values: Sequence[tuple[str, float]],
    *,
    ours: str | None = None,
    most: float | None = None,
) -> Markup:
    """One bar a (name, value), from zero, in colour: all, or the one named `ours`.

    Longer ones than `most` are cut there, with a gap: they would leave no room for the others.
    """
    longest = max((abs(value) for _, value in values), default=0.0) or 1.0
    longest = longest if most is None else min(longest, most)
    left, row = 92, 26
    room = WIDTH - left - 58
    body = []
    for place, (name, value) in enumerate(values):
        y = place * row
        length = max(1.0, room * min(1.0, abs(value) / longest))
        kind = "ours" if ours in (None, name) else "theirs"
        body.append(
            f'<text x="{left - 8}" y="{y + 17}" text-anchor="end">{text(name)}</text>'
            f'<rect class="{kind}" x="{left}" y="{y + 4}" width="{length:.1f}" height="18" rx="3">'
            f"<title>{text(name)}: {number(value)}</title></rect>"
            f"{_gap(left + 0.8 * room, y) if abs(value) > longest else ''}"
            f'<text class="value" x="{left + length + 7:.1f}" y="{y + 17}">{number(value)}</text>'
        )
    return figure(caption, remark, len(values) * row, "".join(body))


def _gap(x: float, y: float) -> str:
    corners = f"{x:.0f},{y + 23} {x + 6:.0f},{y + 3} {x + 11:.0f},{y + 3} {x + 5:.0f},{y + 23}"
    return f'<polygon class="break" points="{corners}"/>'


def thinned(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """Means of neighbours, so that at most a few hundred points are left."""
    size = -(-len(points) // _MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        (sum(step for step, _ in group) / len(group), sum(value for _, value in group) / len(group))
        for group in groups
    ]


def curve(caption: str, points: Sequence[tuple[int, float]], *, unit: str = "step") -> Markup:
    """A line through (step, finite value), at least one, in the order of the steps; `unit` is what
    the steps are."""
    steps, values = zip(*points, strict=True)
    low, high = min(values), max(values)
    across, up = (steps[-1] - steps[0]) or 1, (high - low) or 1.0
    right, bottom = WIDTH - _RIGHT, _TOP + _HEIGHT

    def place(step: float, value: float) -> tuple[float, float]:
        return (
            _LEFT + (right - _LEFT) * (step - steps[0]) / across,
            bottom - _HEIGHT * (value - low) / up,
        )

    last = place(*points[-1])
    line = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in [*thinned(points)])
    body = "".join(
        f'<line class="rule" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>'
        f'<text x="{_LEFT - 7}" y="{y + 4}" text-anchor="end">{number(value)}</text>'
        for y, value in ((_TOP, high), (bottom, low))
    )
    body += (
        f'<polyline class="curve" points="{line} {last[0]:.1f},{last[1]:.1f}"/>'
        f'<circle class="dot" cx="{last[0]:.1f}" cy="{last[1]:.1f}" r="4">'
        f"<title>{text(unit)} {number(steps[-1])}: {number(values[-1])}</title></circle>"
        f'<text x="{_LEFT}" y="{bottom + 18}">{number(steps[0])}</text>'
        f'<text x="{right}" y="{bottom + 18}" text-anchor="end">'
        f"{text(unit)} {number(steps[-1])}</text>"
    )
    return figure(caption, f"last {number(values[-1])}", bottom + 24, body)


class Dot(NamedTuple):
    """A point of a map."""

    x: float
    y: float
    kind: str  # its class, which has a colour
    title: str  # shown where the pointer rests on it


def scatter(caption: str, remark: str, dots: Sequence[Dot]) -> Markup:
    """A map of dots, at least one, in their order, with both axes to one scale."""
    height, edge = 260, 8
    across, up = [dot.x for dot in dots], [dot.y for dot in dots]
    left, right, low, high = min(across), max(across), min(up), max(up)
    scale = min(
        (WIDTH - 2 * edge) / ((right - left) or 1.0), (height - 2 * edge) / ((high - low) or 1.0)
    )
    body = "".join(
        f'<circle class="{dot.kind}" cx="{WIDTH / 2 + scale * (dot.x - (left + right) / 2):.1f}" '
        f'cy="{height / 2 - scale * (dot.y - (low + high) / 2):.1f}" r="3">'
        f"<title>{text(dot.title)}</title></circle>"
        for dot in dots
    )
    return figure(caption, remark, height, body)


def grid(figures: Sequence[Markup]) -> Markup:
    """Figures side by side, as many as fit."""
    return Markup(f'<div class="grid">{"".join(figures)}</div>')
