"""Leave-one-out in time: each user's last interaction is test, the last but one validation.

The split lives in a file beside the data, which decides: ties in time are frequent, and whoever
compares with us must hold out the same interactions.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from flm_torchrec.data.compute import pc
from flm_torchrec.data.dataset import PART_NAMES, TEST, TRAIN, VALIDATION
from flm_torchrec.data.tables import Table, read_table
from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_file

NAME = "leave_one_out"
_FEWEST = 3  # a user with fewer interactions has none to spare


def leave_one_out(user: NDArray, time: NDArray) -> NDArray[np.int8]:
    """(n,) part of each interaction; users and times are in file order, which ties keep."""
    order = np.lexsort((time, user))  # stable
    user = user[order]
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    sizes = np.diff(np.r_[starts, len(user)])
    last = (starts + sizes - 1)[sizes >= _FEWEST]
    part = np.full(len(user), TRAIN, np.int8)
    part[order[last]] = TEST
    part[order[last - 1]] = VALIDATION
    return part


def split_file(folder: Path) -> Path:
    """Where the split of a data folder is written."""
    return folder / "splits" / f"{NAME}.parquet"


def write_split(folder: Path, part: NDArray[np.int8], facts: Mapping[str, pa.Array]) -> None:
    """Write `part` in file order, beside the `facts` (user_id, item_id, timestamp) of each row."""
    names = pa.array(np.array(PART_NAMES)[part])
    row = pa.array(np.arange(len(part)))
    with atomic_file(split_file(folder)) as file:
        parquet.write_table(pa.table({"row": row, **facts, "part": names}), file)


def read_split(folder: Path, facts: Mapping[str, pa.Array]) -> NDArray[np.int8]:
    """(n,) part of each interaction in file order; the file must agree with all `facts`."""
    table = read_table(folder / "splits", NAME)
    num_rows = len(next(iter(facts.values())))
    if table.num_rows != num_rows:
        raise _misfit(table, f"it has {table.num_rows} rows, the interactions {num_rows}")
    row = table.numbers("row").to_numpy(zero_copy_only=False)
    if not np.array_equal(row, np.arange(num_rows)):
        raise _misfit(table, f"its column 'row' does not count from 0 to {num_rows - 1}")
    for name, expected in facts.items():
        is_time = name == "timestamp"
        found = pa.array(table.times(name)) if is_time else table.ids(name)
        if found.type != expected.type:
            kind = pa.float64() if is_time else pa.large_string()
            found, expected = found.cast(kind), expected.cast(kind)
        place = pc.index(pc.equal(found, expected), False).as_py()
        if place >= 0:
            what = f"data row {place + 1}, column '{name}': {found[place]}"
            raise _misfit(table, f"{what}, but the interaction has {expected[place]}")
    names = table.texts("part")
    part = pc.index_in(names, pa.array(PART_NAMES, pa.large_string()))
    bad = pc.index(part.is_null(), True).as_py()
    if bad >= 0:
        raise table.problem(
            bad, "part", f"'{names[bad]}' is not allowed; it is one of {', '.join(PART_NAMES)}"
        )
    parts = part.to_numpy().astype(np.int8)
    _check_order(table, facts, parts)
    return parts


def _misfit(table: Table, what: str) -> UserError:
    return UserError(
        f"{table.path}: does not fit the interactions: {what}; remove the file to split anew"
    )


def _check_order(table: Table, facts: Mapping[str, pa.Array], part: NDArray[np.int8]) -> None:
    """Refuse a split that trains on a user's later interaction than one it holds out."""
    user = pc.dictionary_encode(facts["user_id"]).indices.to_numpy()
    order = np.lexsort((part, facts["timestamp"].to_numpy(), user))
    is_wrong = (np.diff(user[order]) == 0) & (np.diff(part[order]) < 0)
    if is_wrong.any():
        place = int(np.argmax(is_wrong))
        first, second = order[place : place + 2]
        raise _misfit(
            table,
            f"data row {first + 1} is {PART_NAMES[part[first]]}, but the same user's later "
            f"interaction in data row {second + 1} is {PART_NAMES[part[second]]}",
        )
