"""The labels of interactions, read from a column or derived by a comparison."""

import operator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.schema import Label
from flm_torchrec.data.tables import Table

_COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


def _numbers(table: Table, name: str) -> NDArray[np.float64]:
    return table.numbers(name).cast(pa.float64()).to_numpy(zero_copy_only=False)


def label_values(table: Table, name: str, label: Label) -> NDArray[np.float32]:
    """(n,) the label of each interaction; NaN = missing."""
    comparison = label.comparison()
    if comparison is not None:
        numbers = _numbers(table, comparison.column)
        holds = _COMPARE[comparison.operator](numbers, comparison.number)
        return np.where(np.isnan(numbers), np.nan, holds).astype(np.float32)
    numbers = _numbers(table, name)
    if label.kind == "binary":
        wrong = np.flatnonzero(~np.isnan(numbers) & (numbers != 0) & (numbers != 1))
        if len(wrong):
            row = int(wrong[0])
            raise table.problem(row, name, f"{numbers[row]:g} is not 0 or 1, as a binary label is")
    return numbers.astype(np.float32)
