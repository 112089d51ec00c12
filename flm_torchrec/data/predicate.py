"""Conditions on the columns of a row, as a schema states them: `rating >= 4 and type == buy`."""

import math
import re
from dataclasses import dataclass
from typing import Literal, cast

Operator = Literal[">=", "<=", "==", "!=", ">", "<"]
_COMPARISON = re.compile(
    r"\s*(?P<column>[^<>=!]+?)\s*(?P<operator>>=|<=|==|!=|>|<)(?!=)\s*(?P<value>\S|\S.*\S)\s*"
)
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")


@dataclass(frozen=True, slots=True)
class Comparison:
    """`column operator value`."""

    column: str
    operator: Operator
    value: float | str


def parse_predicate(text: str) -> tuple[Comparison, ...]:
    """Comparisons joined by " and ", all of which must hold.

    A value is a number or, with == and !=, a text (in quotes if need be). Raises ValueError.
    """
    return tuple(_parse(part, text) for part in re.split(r"\s+and(?:\s+|$)", text))


def _parse(part: str, text: str) -> Comparison:
    match = _COMPARISON.fullmatch(part)
    if match is None:
        raise ValueError(
            f"'{text}' is not of the form COLUMN >=|<=|==|!=|>|< VALUE, joined by 'and'"
        )
    operator = cast(Operator, match["operator"])
    value = match["value"]
    number = _number(value)
    if number is not None:
        return Comparison(match["column"], operator, number)
    if operator not in ("==", "!="):
        raise ValueError(f"'{text}': '{value}' is not a number; allowed with texts: == and !=")
    quoted = _QUOTED.fullmatch(value)
    if quoted is None and re.search("[<>=!]", value):  # "1 or buys == 2"
        raise ValueError(f"'{text}': put '{value}' in quotes; comparisons are joined by 'and'")
    return Comparison(match["column"], operator, quoted[1] or quoted[2] or "" if quoted else value)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
