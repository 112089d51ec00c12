"""What one pipeline, kernel or dtype in place of the usual one changes, all else equal: a section.

Example:
    for swap in swaps(lines):
        print(swap.what, swap.value, np.median(swap.ratios))
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flm_benchmarks.sharding.cells import apart_in, median_ms
from flm_benchmarks.sharding.lines import Line, ranks_of

from flm_torchrec.evaluation.page import Markup, section, table

USUAL = {"pipeline": "base", "kernel": "fused", "dtype": "fp32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """Pairs of lines that differ in one option alone."""

    what: str
    value: str
    ranks: str
    ratios: list[float]  # of the step times, that with the usual value below


def swaps(lines: Sequence[Line]) -> list[Swap]:
    """Of each option and value, on each number of ranks."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for what, usual in USUAL.items():
        for own in apart_in(lines, what):
            by = {line["setting"]["point"][what]: line for line in own}
            if usual not in by:
                continue
            passes = by[usual]["figures"]["passes"]
            for value, line in by.items():
                if value != usual and line["figures"]["passes"] == passes:
                    ratio = median_ms(line) / median_ms(by[usual])
                    found.setdefault((what, value, ranks_of(line)), []).append(ratio)
    return [
        Swap(what=what, value=value, ranks=ranks, ratios=ratios)
        for (what, value, ranks), ratios in found.items()
    ]


def swapped(lines: Sequence[Line]) -> Markup:
    """Step times as ratios, over all pairs of lines that differ in one option alone."""
    rows = []
    for swap in swaps(lines):
        low, middle, high = np.quantile(swap.ratios, [0, 0.5, 1])
        cells = [f"{middle:.2f}x", f"{low:.2f} to {high:.2f}x", len(swap.ratios)]
        rows.append([swap.what, swap.value, USUAL[swap.what], swap.ranks, *cells])
    title = "One option for another"
    if not rows:
        note = "No two lines differ in their pipeline, kernel or dtype alone."
        return section(title, table((), [[note]]))
    head = ["", "value", "in place of", "", "step time, median", "least to most", "pairs"]
    return section(title, table(head, rows, numbers=(4, 5, 6)))
