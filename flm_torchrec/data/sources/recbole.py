"""RecBole's atomic files NAME.inter, .item and .user: tab-separated, a header of name:type."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from flm_torchrec.data.compute import pc
from flm_torchrec.data.schema import (
    EntitySchema,
    Feature,
    InteractionSchema,
    ItemSchema,
    Reviews,
    Schema,
)
from flm_torchrec.data.sources.folder import new_folder, rating_labels
from flm_torchrec.data.sources.lines import read_delimited, read_header
from flm_torchrec.data.sources.plots import add_plots
from flm_torchrec.errors import UserError

_TYPES = {"token": pa.string(), "token_seq": pa.string(), "float": pa.float64()}
_TYPES["float_seq"] = pa.string()
_INTERACTIONS = {
    "user_id": pa.string(),
    "item_id": pa.string(),
    "rating": pa.float64(),
    "timestamp": pa.float64(),
}
_LEVELS = 12  # different ratings beyond which they are no levels
_LIKED = 0.8  # of the highest rating


def _kinds(path: Path) -> dict[str, str]:
    """Name -> type of each column."""
    kinds: dict[str, str] = {}
    for column in read_header(path, delimiter="\t"):
        name, _, kind = column.partition(":")
        if kind not in _TYPES:
            raise UserError(
                f"{path}: the header has '{column}'; a column is NAME:TYPE, where TYPE is one of "
                f"{', '.join(_TYPES)}"
            )
        if set(".{}") & set(name):
            what = f"the header has '{column}'; allowed: names without . {{ and }}"
            raise UserError(f"{path}: {what}")
        kinds[name] = kind
    return kinds


def read_atomic(path: Path, needed: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
    """Blocks of rows: the columns `needed` in that order and types, then the others."""
    kinds = _kinds(path)
    missing = [name for name in needed if name not in kinds]
    if missing:
        raise UserError(f"{path}: no column {', '.join(missing)}; it has {', '.join(kinds)}")
    types = {name: needed.get(name, _TYPES[kind]) for name, kind in kinds.items()}
    for rows in read_delimited(path, types, delimiter="\t", has_header=True):
        yield rows.select([*needed, *(name for name in kinds if name not in needed)])


def _features(kinds: Mapping[str, str]) -> dict[str, Feature]:
    made = {
        "token": Feature(kind="categorical"),
        "token_seq": Feature(kind="multi", separator=" "),
        "float": Feature(kind="numeric", buckets=10),
        "float_seq": Feature(kind="vector", separator=" "),
    }
    return {name: made[kind] for name, kind in kinds.items()}


def _names(kinds: Mapping[str, str]) -> list[str]:
    """The columns that name an item."""
    return [name for name in kinds if "title" in name or "name" in name]


def convert_atomic(path: Path, out: Path, *, plots: Path | None = None) -> dict[str, int]:
    """Write the data folder `out` from NAME.inter and what stands beside; -> rows of each table."""
    ratings: set[float] = set()
    entities = {}
    with new_folder(out) as folder:
        for table, suffix, id in (("users", ".user", "user_id"), ("items", ".item", "item_id")):
            file = path.with_suffix(suffix)
            if not file.exists():
                entities[table] = {}
                continue
            rows = pa.concat_tables(read_atomic(file, {id: pa.string()}))
            entities[table] = {name: k for name, k in _kinds(file).items() if name != id}
            if plots is not None and table == "items":
                rows = add_plots(rows, plots, by_id=False)
            folder.add(table, rows)
        for rows in read_atomic(path, _INTERACTIONS):
            ratings |= set(pc.unique(rows["rating"].drop_null()).to_pylist())
            folder.add("interactions", rows)
        if not ratings:
            raise UserError(f"{path}: column 'rating' is empty everywhere")
        labels = rating_labels(_LIKED * max(ratings), are_levels=len(ratings) <= _LEVELS)
        items = entities["items"]
        texts: dict[str, str | Reviews] = {name: f"{{{name}}}" for name in _names(items)}
        texts |= {"plot": "{plot}"} if plots is not None else {}
        features = _features({name: kind for name, kind in items.items() if name not in texts})
        folder.write_schema(
            Schema(
                users=EntitySchema(id="user_id", features=_features(entities["users"])),
                items=ItemSchema(id="item_id", features=features, text=texts),
                interactions=InteractionSchema(
                    user="user_id", item="item_id", time="timestamp", labels=labels
                ),
            )
        )
    return folder.num_rows
