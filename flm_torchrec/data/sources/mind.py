"""MIND, Microsoft's news: what users were shown and clicked, as a data folder.

A row of the interactions is a candidate of an impression (`event` is `impression`), or a click from
before the log (`history`). The log has no times of the latter: they stand a second before the
user's first impression. They fill histories and are positives, so that they never count as shown
and not clicked; the label click is that of impressions alone.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from flm_torchrec.data.compute import pc
from flm_torchrec.data.schema import (
    EntitySchema,
    Feature,
    InteractionSchema,
    ItemSchema,
    Label,
    Schema,
)
from flm_torchrec.data.sources.folder import NewFolder, new_folder
from flm_torchrec.data.sources.lines import read_delimited
from flm_torchrec.errors import UserError

_WHOLE, _TEXT = pa.int64(), pa.string()
_BEHAVIORS = {
    "impression": _WHOLE,
    **dict.fromkeys(["user_id", "time", "history", "candidates"], _TEXT),
}
_ITEMS = ("item_id", "category", "subcategory", "title", "abstract")
_NEWS = dict.fromkeys([*_ITEMS, "url", "title_entities", "abstract_entities"], _TEXT)
_TIME = "%m/%d/%Y %I:%M:%S %p"  # 11/15/2019 9:55:12 AM
_USERS = 20_000  # whose histories are written at once

SCHEMA = Schema(
    users=EntitySchema(id="user_id"),
    items=ItemSchema(
        id="item_id",
        features={name: Feature(kind="categorical") for name in ("category", "subcategory")},
        text={"title": "{title}", "abstract": "{abstract}"},
    ),
    interactions=InteractionSchema(
        user="user_id",
        item="item_id",
        time="timestamp",
        context={"position": Feature(kind="numeric")},
        labels={"click": Label(kind="binary", where="event == impression")},
        history="click == 1",
        positives="click == 1",
        negatives="logged",
        order="by_log",
    ),
)


def _folders(path: Path) -> list[Path]:
    """Those that hold behaviors.tsv: `path` itself, or what is below it, train before dev."""
    if (path / "behaviors.tsv").exists():
        return [path]
    found = sorted(path.glob("*/behaviors.tsv"), key=lambda file: "train" not in file.parent.name)
    if not found:
        raise UserError(f"{path}: has no behaviors.tsv, nor a folder with one")
    return [file.parent for file in found]


def _behaviors(file: Path) -> Iterator[pa.Table]:
    """Blocks of rows, `time` in seconds."""
    first = 0
    for rows in read_delimited(file, _BEHAVIORS, delimiter="\t"):
        seconds = pc.strptime(rows["time"], format=_TIME, unit="s", error_is_null=True)
        for name, column in (("time", seconds), *((n, rows[n]) for n in ("user_id", "candidates"))):
            row = pc.index(column.is_null(), True).as_py()
            if row >= 0:
                given = rows[name][row].as_py()
                wanted = "11/15/2019 9:55:12 AM" if name == "time" else "a value"
                raise _problem(file, first + row, name, f"'{given or ''}', where {wanted}")
        place = rows.column_names.index("time")
        yield rows.set_column(place, "time", seconds.cast(pa.int64()))
        first += rows.num_rows


def _problem(file: Path, row: int, column: str, what: str) -> UserError:
    return UserError(f"{file}: line {row + 1}, column '{column}': {what} is needed")


def _add_histories(folder: NewFolder, files: list[Path]) -> None:
    """The clicks that each user's first impression has behind it."""
    found: dict[str, tuple[int, str | None]] = {}  # user -> time of the impression, clicks
    for file in files:
        for rows in _behaviors(file):
            columns = (rows[name].to_pylist() for name in ("user_id", "time", "history"))
            for user, time, history in zip(*columns, strict=True):
                if user not in found or time < found[user][0]:
                    found[user] = time, history and history.strip()
    users = [user for user, (_, history) in found.items() if history]
    for first in range(0, len(users), _USERS):
        chosen = users[first : first + _USERS]
        clicks = pc.split_pattern_regex(pa.array([found[user][1] for user in chosen]), r"\s+")
        user = pc.list_parent_indices(clicks)
        times = pa.array([found[user][0] - 1 for user in chosen])
        folder.add(
            "interactions",
            _table(
                user=pa.array(chosen).take(user),
                item=pc.list_flatten(clicks),
                time=times.take(user),
                click=pa.array(np.ones(len(user), dtype=np.int8)),
                event="history",
            ),
        )


def _add_impressions(folder: NewFolder, file: Path, before: int) -> int:
    """Every candidate of the file; impressions are counted on from `before`; -> their number."""
    count = 0
    for rows in _behaviors(file):
        rows = rows.combine_chunks()
        shown = pc.split_pattern_regex(pc.utf8_trim_whitespace(rows["candidates"]), r"\s+")
        shown = pa.concat_arrays(shown.chunks)
        candidate, parent = pc.list_flatten(shown), pc.list_parent_indices(shown)
        bad = pc.index(pc.match_substring_regex(candidate, r"^.+-[01]$"), False).as_py()
        if bad >= 0:
            row = count + parent[bad].as_py()
            what = f"'{candidate[bad]}', where a news id with -0 or -1, not clicked or clicked,"
            raise _problem(file, row, "candidates", what)
        offsets = shown.offsets.to_numpy()
        position = np.arange(len(candidate)) - np.repeat(offsets[:-1], np.diff(offsets)) + 1
        parents = parent.to_numpy()
        folder.add(
            "interactions",
            _table(
                user=rows["user_id"].take(parent),
                item=pc.utf8_slice_codeunits(candidate, 0, -2),
                time=rows["time"].take(parent),
                click=pc.ends_with(candidate, "-1").cast(pa.int8()),
                event="impression",
                impression=pa.array(before + count + parents),
                position=pa.array(position),
            ),
        )
        count += rows.num_rows
    return count


def _table(
    *,
    user: pa.Array,
    item: pa.Array,
    time: pa.Array,
    click: pa.Array,
    event: str,
    impression: pa.Array | None = None,
    position: pa.Array | None = None,
) -> pa.Table:
    none = pa.nulls(len(click), pa.int64())
    return pa.table(
        {
            "user_id": user,
            "item_id": item,
            "timestamp": time,
            "event": pa.repeat(event, len(click)),
            "impression": none if impression is None else impression,
            "position": none if position is None else position,
            "click": click,
        }
    )


def _add_news(folder: NewFolder, files: list[Path]) -> None:
    seen: set[str] = set()
    for file in files:
        for rows in read_delimited(file, _NEWS, delimiter="\t"):
            ids = rows["item_id"].to_pylist()
            is_new = [id not in seen and not seen.add(id) for id in ids]
            folder.add("items", rows.select(list(_ITEMS)).filter(pa.array(is_new)))


def convert_mind(path: Path | str, out: Path | str) -> dict[str, int]:
    """Write the data folder `out`; -> rows of each table.

    `path` holds behaviors.tsv and news.tsv, or folders that do, such as those of train and dev.
    """
    folders = _folders(Path(path))
    files = [folder / "behaviors.tsv" for folder in folders]
    with new_folder(out) as folder:
        _add_news(folder, [source / "news.tsv" for source in folders])
        _add_histories(folder, files)
        before = 0
        for file in files:
            before += _add_impressions(folder, file, before)
        folder.write_schema(SCHEMA)
    return folder.num_rows
