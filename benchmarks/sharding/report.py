"""One page of the lines of several jobs, as of 1, 2 and 4 ranks.

Example:
    python -m flm_benchmarks.sharding.report one.jsonl two.jsonl --out page.html
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from flm_benchmarks.sharding.cells import measured
from flm_benchmarks.sharding.growth import growth
from flm_benchmarks.sharding.lines import Line, key_of, machine_key, read_lines
from flm_benchmarks.sharding.markdown import NOTE, as_markdown
from flm_benchmarks.sharding.sections import (
    ablation,
    by_plan,
    circumstances,
    everything,
    predictions,
    roofline,
    scaling,
    without_figures,
)
from flm_benchmarks.sharding.swaps import swapped

from flm_torchrec.errors import UserError, app
from flm_torchrec.evaluation.page import Markup, page, text, tiles
from flm_torchrec.files import atomic_file


def merged(files: Sequence[Path]) -> list[Line]:
    """The lines of all files; of those with one setting and machine the last."""
    lines = {key_of(line): line for file in files for line in read_lines(file)}
    if not lines:
        raise UserError(f"{', '.join(map(str, files))}: hold no line")
    return list(lines.values())


def render(lines: Sequence[Line]) -> str:
    """The whole page of at least one line."""
    body = [_summary(lines), Markup(f"<p>{text(NOTE)}</p>")]
    if found := measured(lines):
        parts = (by_plan, ablation, swapped, scaling, growth, predictions, roofline)
        body += [part(found) for part in parts]
        body.append(everything(found))
    return page("Embedding sharding", [*body, without_figures(lines), *circumstances(lines)])


def _summary(lines: Sequence[Line]) -> Markup:
    found = measured(lines)
    sizes = sorted({line["setting"]["world_size"] for line in lines})
    machines = {machine_key(line["machine"]) for line in lines}
    without = len(lines) - len(found)
    return tiles(
        [
            ("Points measured", len(found), f"{without} without figures, with the reason"),
            ("Ranks", ", ".join(map(str, sizes)), f"{len(machines)} kinds of machine"),
        ]
    )


def write_page(lines: Sequence[Line], path: Path) -> None:
    """Write the page of the lines at once."""
    with atomic_file(path) as file:
        file.write_text(render(lines), encoding="utf-8")


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Merge the files into a page, a Markdown table, or both."""
    parser = argparse.ArgumentParser(prog="sharding.report", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help="JSON lines")
    parser.add_argument("--out", type=Path, help="the page")
    parser.add_argument("--markdown", type=Path, help="the table, printed without both")
    args = parser.parse_args(argv)
    lines = merged(args.files)
    if args.out is not None:
        write_page(lines, args.out)
    if args.markdown is not None:
        with atomic_file(args.markdown) as file:
            file.write_text(as_markdown(lines), encoding="utf-8")
    if args.out is None and args.markdown is None:
        print(as_markdown(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
