"""A checkpoint rewritten for tables of so many column shards, by a process that is no rank.

Nothing needs it to be loaded: tables and element-wise state load under any plan as they are, and
row-wise state is converted then. It is for those who want that done, and told, once.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_file, atomic_folder
from flm_torchrec.training.convert import Conversion, after_conversion, conversions, regrouped
from flm_torchrec.training.markers import MARKER, damage, read_marker
from flm_torchrec.training.stored import as_written, read_whole, write


def reshard(path: Path, out: Path, *, columns: int) -> list[str]:
    """Write to `out`, a new folder, the checkpoint at `path` with the row-wise optimizer state of
    every fused table as `columns` equal column shards keep it; -> what was converted, told.

    Holds the whole checkpoint in memory.
    """
    marker = read_marker(path)
    if (wrong := damage(path)) is not None:
        raise UserError(f"checkpoint {path}: {wrong}")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"--out {out}: is there already; allowed: a new folder")
    held = marker["shapes"]
    known = marker.get("column_widths", {})
    made = _conversions(held, known, columns)
    state = read_whole(path)
    for one in made:
        name = f"optimizer.{one.parameter}.{one.held}"
        rows = state[name].view(len(one.held_widths), -1)
        state[name] = regrouped(rows, one.held_widths, one.widths).reshape(-1)
    widths = {one.parameter: list(one.widths) for one in made}
    marker |= {
        "shapes": after_conversion(held, made),
        "column_widths": {n: own for n, own in (known | widths).items() if len(own) > 1},
        "resharded": {"columns": columns},
    }
    with atomic_folder(out) as folder:
        marker["files"] = as_written(folder, write(folder, dict(state), alone=True))
        with atomic_file(folder / MARKER) as file:
            file.write_text(json.dumps(marker, indent=1), encoding="utf-8")
    return [one.told() for one in made]


def _conversions(
    held: dict[str, list[int] | None], known: dict[str, Sequence[int]], columns: int
) -> list[Conversion]:
    """Those of all tables whose row-wise state is of other column shards."""
    wanted, widths = dict(held), {}
    for entry, shape in held.items():
        parameter = entry.removeprefix("model.")
        if parameter == entry or shape is None or len(shape) != 2:
            continue
        rows, dim = shape
        table = parameter.removesuffix(".weight").rpartition(".")[2]
        state = f"optimizer.{parameter}.{table}.momentum1"
        if len(held.get(state) or shape) != 1:
            continue
        if dim % columns:
            raise UserError(
                f"--columns: {columns} can't share the {dim} columns of {table}; "
                f"allowed: a divisor of {dim}"
            )
        wanted[state], widths[parameter] = [rows * columns], [dim // columns] * columns
    return conversions(held, wanted, held_widths=known, widths=widths)
