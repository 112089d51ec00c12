"""Which rows of a table the predicates of a schema hold for."""

import pyarrow as pa

from flm_torchrec.data.compute import pc
from flm_torchrec.data.predicate import Comparison, parse_predicate
from flm_torchrec.data.reading.tables import Table

_OPERATORS = {
    ">=": pc.greater_equal,
    "<=": pc.less_equal,
    "==": pc.equal,
    "!=": pc.not_equal,
    ">": pc.greater,
    "<": pc.less,
}


def holds(table: Table, predicate: str) -> pa.Array:
    """(n,) whether a predicate holds; null where a column is missing."""
    result = pa.scalar(True)
    for comparison in parse_predicate(predicate):
        result = pc.and_(result, _compared(table, comparison))
    return result


def _compared(table: Table, comparison: Comparison) -> pa.Array:
    if isinstance(comparison.value, str):
        values, value = table.texts(comparison.column), comparison.value
    else:
        numbers = table.numbers(comparison.column)
        values, value = numbers.cast(pa.float64(), safe=False), comparison.value
    return _OPERATORS[comparison.operator](values, value)
