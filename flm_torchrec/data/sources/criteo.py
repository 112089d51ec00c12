"""Criteo's click logs as a data folder: label, I1 to I13, C1 to C26, separated by tabs."""

import re
from pathlib import Path

import pyarrow as pa

from flm_torchrec.data.schema import Feature, Hash
from flm_torchrec.data.sources.folder import new_folder
from flm_torchrec.data.sources.lines import read_delimited
from flm_torchrec.data.sources.synthetic_context import CATEGORICAL, NUMERIC, criteo_schema
from flm_torchrec.errors import UserError

_COLUMNS = {
    "click": pa.int64(),
    **dict.fromkeys(NUMERIC, pa.int64()),
    **dict.fromkeys(CATEGORICAL, pa.string()),
}
_DAY = re.compile(r"day_(\d+)(\.\w+)*")


def _files(path: Path) -> list[tuple[int | None, Path]]:
    """The files in the order of their days: (day, file)."""
    if path.is_file():
        return [(None, path)]
    days = {file: _DAY.fullmatch(file.name) for file in path.glob("day_*")}
    found = sorted((int(match[1]), file) for file, match in days.items() if match)
    if len(found) > 1:
        return [*found]
    one = [file for _, file in found] or sorted(path.glob("train.*"))
    if len(one) != 1:
        raise UserError(f"{path}: needs day_0, day_1, ... or one train.txt, also as .gz")
    return [(None, one[0])]


def convert_criteo(
    path: Path | str, out: Path | str, *, hash_rows: int | None = None
) -> dict[str, int]:
    """Write the data folder `out` from a file, or a folder of days; -> rows of each table.

    Rows stay in the order of days and files, which is that of time: a split by time needs no
    column of times, and days alone would be too coarse. The column `day` is there to be read.
    With `hash_rows` the values of a column share so many rows by their hash.
    """
    if hash_rows is not None and hash_rows < 1:
        raise UserError(f"hash: {hash_rows}; allowed: 1 or more rows")
    files = _files(Path(path))
    hashed = None if hash_rows is None else Hash(rows=hash_rows)
    with new_folder(out) as folder:
        for day, file in files:
            for rows in read_delimited(file, _COLUMNS, delimiter="\t"):
                if day is not None:
                    rows = rows.append_column("day", pa.repeat(day, rows.num_rows))
                folder.add("interactions", rows)
        context = {name: Feature(kind="numeric") for name in NUMERIC}
        context |= {name: Feature(kind="categorical", hash=hashed) for name in CATEGORICAL}
        folder.write_schema(criteo_schema(context))
    return folder.num_rows
