"""The lines of the sharding benchmark as Markdown: the figures, then what has none and why."""

from collections.abc import Iterable, Sequence

from flm_benchmarks.sharding.cells import (
    FIGURES,
    REASONS,
    SETTING,
    figure_cells,
    measured,
    reasons,
    setting_cells,
)
from flm_benchmarks.sharding.lines import Line, busy

NOTE = (
    "Times are those of the slowest rank in each repeat; (10th-90th percentile). The parts are "
    "measured without overlap, each after a barrier; the step runs in its pipeline. Table traffic "
    "is what the rows of a step need, whatever the plan. Imbalance: the slowest rank's forward "
    "pass over the mean rank's. Peak memory is that of the whole process on CPU. The planner "
    "predicts tables and the exchange of rows only."
)


def as_markdown(lines: Sequence[Line]) -> str:
    """Both tables; the second only where there is something to tell."""
    told = []
    if found := measured(lines):
        told += [_table((*SETTING, *FIGURES), map(_cells, found)), NOTE]
        if remark := busy(found):
            told.append(f"Beware: {remark}.")
    if without := reasons(lines):
        rows = [[why, status, str(len(of)), "; ".join(of)] for why, status, of in without]
        told.append(_table(REASONS, rows))
    return "\n\n".join(told) + "\n"


def _cells(line: Line) -> list[str]:
    return setting_cells(line) + figure_cells(line)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in body
    )
