"""What must hold of a figure, and whether it does.

Example:
    entry = checked("test ndcg@10", 0.126, ">=", 0.1)  # {"passed": True, ...}
"""

import math
import operator
from collections.abc import Sequence
from typing import Any

COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def checked(name: str, value: Any, sign: str, bound: Any) -> dict[str, Any]:
    """An entry that passes where `value sign bound` holds.

    Where either is no finite number, `passed` is false and `reason` says which.
    """
    given = {"value": value, "bound": bound}
    missing = [
        side
        for side, number in given.items()
        if not isinstance(number, int | float) or not math.isfinite(number)
    ]
    if missing:
        told = f"{' and '.join(missing)} missing"
        return {"name": name, "passed": False, **given, "reason": told}
    return {"name": name, "passed": bool(COMPARE[sign](value, bound)), **given}


def as_table(entries: Sequence[dict[str, Any]]) -> str:
    """A line an entry, marked where it failed."""

    def cell(number: Any) -> str:
        return f"{number:>12.4f}" if isinstance(number, int | float) else f"{'-':>12}"

    width = 2 + max([46, *(len(entry["name"]) for entry in entries)])
    lines = [f"{'check':<{width}}{'value':>12}{'bound':>12}"]
    for entry in entries:
        mark = "" if entry["passed"] else "  FAILED"
        reason = f": {entry['reason']}" if "reason" in entry else ""
        lines.append(
            f"{entry['name']:<{width}}{cell(entry['value'])}{cell(entry['bound'])}{mark}{reason}"
        )
    return "\n".join(lines)
