"""From the table of interactions to `Interactions`: entity rows, labels, order."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.compute import pc
from flm_torchrec.data.dataset import TRAIN, Interactions
from flm_torchrec.data.schema import InteractionSchema, Label
from flm_torchrec.data.tables import Table
from flm_torchrec.errors import UserError

_COMPARE = {
    ">=": pc.greater_equal,
    "<=": pc.less_equal,
    "==": pc.equal,
    "!=": pc.not_equal,
    ">": pc.greater,
    "<": pc.less,
}


def entity_rows(
    table: Table, column: str, ids: pa.Array, catalogue: Table, known: pa.Array
) -> NDArray[np.int64]:
    """(n,) row of each interaction's user or item among the `known` ids of `catalogue`, from 1."""
    place = pc.index_in(ids, known)
    unknown = pc.index(place.is_null(), True).as_py()
    if unknown >= 0:
        raise table.problem(
            unknown,
            column,
            f"{ids[unknown]} is no id of {catalogue.path.name}, which must list them all",
        )
    return place.to_numpy().astype(np.int64) + 1


def _check_repeats(
    table: Table, names: InteractionSchema, user: NDArray[np.int64], item: NDArray[np.int64]
) -> None:
    if names.repeats:
        return
    order = np.lexsort((item, user))  # stable: file order among equals
    is_repeat = (np.diff(user[order]) == 0) & (np.diff(item[order]) == 0)
    if is_repeat.any():
        place = int(np.argmax(is_repeat))
        first, second = order[place : place + 2]
        raise table.problem(
            int(second),
            names.item,
            f"this user met this item in data row {first + 1} already, "
            "but schema.yaml says interactions.repeats: false",
        )


def _label(table: Table, name: str, label: Label) -> NDArray[np.float32]:
    """(n,) a label's values; NaN = missing."""
    comparison = label.comparison()
    if comparison is not None:
        numbers = table.numbers(comparison.column)
        numbers = _COMPARE[comparison.operator](numbers, comparison.number).cast(pa.int64())
    else:
        numbers = table.numbers(name)
    if label.kind == "binary":
        is_other = pc.invert(pc.is_in(numbers, pa.array([0, 1], numbers.type)))
        bad = pc.index(pc.and_(is_other, numbers.is_valid()), True).as_py()
        if bad >= 0:
            raise table.problem(
                bad, name, f"{numbers[bad]} is not allowed; a binary label is 0, 1 or empty"
            )
    return numbers.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float32)


def _levels(
    table: Table, name: str, values: NDArray[np.float32], is_train: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """The sorted distinct training values of an ordinal label."""
    levels = np.unique(values[is_train & ~np.isnan(values)])
    if len(levels) < 2:
        raise UserError(
            f"{table.path}: column '{name}': an ordinal label needs two distinct values or "
            f"more in training, it has {len(levels)}"
        )
    return levels


def build_interactions(
    table: Table,
    names: InteractionSchema,
    *,
    user: NDArray[np.int64],  # (n,) entity rows, in file order like all that follows
    item: NDArray[np.int64],
    time: NDArray[np.int64] | NDArray[np.float64],
    part: NDArray[np.int8],
    num_users: int,  # the unknown one included
) -> tuple[Interactions, dict[str, NDArray[np.float32]]]:
    """The interactions of `table`, and the levels of its ordinal labels, fitted on training."""
    _check_repeats(table, names, user, item)
    labels = {name: _label(table, name, label) for name, label in names.labels.items()}
    levels = {
        name: _levels(table, name, labels[name], part == TRAIN)
        for name, label in names.labels.items()
        if label.kind == "ordinal"
    }
    order = np.lexsort((time, user))  # stable: ties keep file order
    counts = np.bincount(user, minlength=num_users)
    interactions = Interactions(
        user=user[order],
        item=item[order],
        time=np.floor(time[order]).astype(np.int64),
        source_row=order.astype(np.int64),
        part=part[order],
        labels={name: values[order] for name, values in labels.items()},
        user_offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )
    return interactions, levels
