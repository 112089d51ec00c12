"""Pieces of one self-contained HTML page: text is escaped here, and nowhere else."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f6f4; --card: #ffffff; --line: #e2e1dc; --ink: #17171a; --soft: #5c5c64;
  --ours: #2a6fd0; --theirs: #b6b6bd; --wash: #eef3fb; --good: #0b7a3b; --bad: #c02b2b;
  --g0: #2a6fd0; --g1: #d9622b; --g2: #159a73; --g3: #b0439c; --g4: #b58900; --g5: #7a4b2a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #141416; --card: #1d1d20; --line: #343439; --ink: #eeeef0; --soft: #a3a3ad;
    --ours: #5b9bf0; --theirs: #5d5d66; --wash: #202a3a; --good: #4cc381; --bad: #f07474;
    --g0: #5b9bf0; --g1: #f08a55; --g2: #3fc79b; --g3: #dd7fce; --g4: #e3c04a; --g5: #b58a6a;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 20px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 12px; }
h3 { font-size: 14px; margin: 20px 0 8px; color: var(--soft); font-weight: 600; }
.card, .tiles > div { background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
.card { padding: 6px 16px; overflow-x: auto; }
.card + .grid { margin-top: 12px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px; }
.tiles > div { padding: 14px 16px; }
.tiles span { display: block; color: var(--soft); font-size: 13px; }
.tiles strong { display: block; font-size: 26px; font-weight: 650; line-height: 1.25; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 12px 7px 0; text-align: left; border-bottom: 1px solid var(--line);
  white-space: nowrap; vertical-align: top; }
th { color: var(--soft); font-weight: 600; font-size: 13px; }
tr:last-child > td { border-bottom: 0; }
td.wide, td details { white-space: normal; overflow-wrap: anywhere; }
th.number, td.number { text-align: right; }
th.ours, td.ours { background: var(--wash); }
b { font-weight: 750; }
summary { cursor: pointer; color: var(--soft); }
section > details { margin-top: 12px; }
section > details > summary { font-size: 13px; margin-bottom: 6px; }
.good, .tiles .good { color: var(--good); font-weight: 650; }
.bad, .tiles .bad { color: var(--bad); font-weight: 650; }
.grid { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); }
.grid > figure { margin: 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 12px 16px; }
figcaption { font-weight: 600; font-size: 14px; margin-bottom: 6px; overflow-wrap: anywhere; }
figcaption span { color: var(--soft); font-weight: 400; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif;
  font-variant-numeric: tabular-nums; }
svg text.value { fill: var(--ink); }
svg .break { fill: var(--card); }
svg .rule { stroke: var(--line); stroke-width: 1; }
svg .curve { fill: none; stroke: var(--ours); stroke-width: 2; stroke-linejoin: round; }
svg .dot { fill: var(--ours); stroke: var(--card); stroke-width: 2; }
svg .ours { fill: var(--ours); }
svg .theirs, svg .rest { fill: var(--theirs); }
svg circle[class^="group-"] { fill-opacity: 0.8; }
svg .group-0 { fill: var(--g0); } svg .group-1 { fill: var(--g1); }
svg .group-2 { fill: var(--g2); } svg .group-3 { fill: var(--g3); }
svg .group-4 { fill: var(--g4); } svg .group-5 { fill: var(--g5); }
svg .line-0 { stroke: var(--g0); } svg .line-1 { stroke: var(--g1); }
svg .line-2 { stroke: var(--g2); } svg .line-3 { stroke: var(--g3); }
svg .line-4 { stroke: var(--g4); } svg .line-5 { stroke: var(--g5); }
.legend { color: var(--soft); font-size: 13px; margin: 0 0 10px; }
.legend span { margin-left: 14px; white-space: nowrap; }
.legend svg { display: inline-block; width: 10px; margin-right: 5px; }
"""


class Markup(str):
    """HTML that is safe as it stands."""

    __slots__ = ()


def number(value: float) -> str:
    """Four significant digits or so, as people write them: 0.0711, 1.029, 12,345."""
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if size != 0 and (size < 1e-3 or size >= 1e6):
        return f"{value:.3g}"
    decimals = sum(size < limit for limit in (1, 10, 100, 1000))
    return f"{value:,.{decimals}f}"


def text(value: Any) -> str:
    """Any value of a report as escaped HTML; a missing one is a dash."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return "&ndash;"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{escape(str(key))} {text(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(text(entry) for entry in value)
    return escape(str(value))


def bold(value: Any) -> Markup:
    """`value` where the eye should fall."""
    return Markup(f"<b>{text(value)}</b>")


def verdict(passed: Any) -> Markup:
    """Passed or FAILED, told by word and sign as well as by colour."""
    return Markup(
        '<span class="good">&#10003; passed</span>'
        if passed
        else '<span class="bad">&#10007; FAILED</span>'
    )


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    numbers: Sequence[int] = (),
    ours: int | None = None,
) -> Markup:
    """A table; the columns `numbers` are set to the right, the column `ours` is tinted."""

    def line(tag: str, row: Sequence[Any]) -> str:
        cells = []
        for column, value in enumerate(row):
            kinds = ["number"] if column in numbers else []
            kinds += ["ours"] if column == ours else []
            # A long text may break; figures and names stay on one line.
            is_long = not isinstance(value, Markup) and len(text(value)) > 48
            kinds += ["wide"] if is_long else []
            cells.append(f'<{tag} class="{" ".join(kinds)}">{text(value)}</{tag}>')
        return f"<tr>{''.join(cells)}</tr>"

    top = f"<thead>{line('th', head)}</thead>" if head else ""
    body = "".join(line("td", row) for row in rows)
    return Markup(f'<div class="card"><table>{top}<tbody>{body}</tbody></table></div>')


def folded(summary: str, body: Markup) -> Markup:
    """`body`, which is shown where a reader asks for it."""
    return Markup(f"<details><summary>{text(summary)}</summary>{body}</details>")


def tiles(entries: Iterable[tuple[str, Any, Any]]) -> Markup:
    """Large figures, each a (label, figure, remark)."""
    cells = (
        f"<div><span>{text(label)}</span><strong>{text(figure)}</strong>"
        f"<span>{text(remark)}</span></div>"
        for label, figure, remark in entries
    )
    return Markup(f'<div class="tiles">{"".join(cells)}</div>')


def subtitle(value: str) -> Markup:
    """A heading within a section."""
    return Markup(f"<h3>{text(value)}</h3>")


def section(title: str, *body: Markup) -> Markup:
    """A headed part of the page."""
    return Markup(f"<section><h2>{text(title)}</h2>{''.join(body)}</section>")


def alarm(value: str) -> Markup:
    """A line that must not be overlooked."""
    return Markup(f'<p class="bad">&#10007; {text(value)}</p>')


def legend(title: str, keys: Iterable[tuple[str, str]]) -> Markup:
    """The names of colours, each a (class, name)."""
    names = (
        f'<span><svg viewBox="0 0 10 10"><circle class="{kind}" cx="5" cy="5" r="5"/></svg>'
        f"{text(name)}</span>"
        for kind, name in keys
    )
    return Markup(f'<p class="legend">{text(title)} {"".join(names)}</p>')


def page(title: str, body: Iterable[Markup]) -> str:
    """The whole document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><main><h1>{text(title)}</h1>\n{chr(10).join(body)}\n</main></body></html>\n"
    )
