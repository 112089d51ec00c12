"""Amazon's reviews as a data folder, from the JSON lines of 2014, 2018 or 2023.

Users are known by their ids, items by what their reviews say, and by the products' file if given.
"""

import ast
import json
import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.schema import (
    EntitySchema,
    Feature,
    InteractionSchema,
    ItemSchema,
    Reviews,
    Schema,
)
from flm_torchrec.data.sources.folder import new_folder, rating_labels
from flm_torchrec.data.sources.lines import open_bytes
from flm_torchrec.errors import UserError

T = TypeVar("T")
_ROWS = 50_000  # of a block
_MILLISECONDS = 100_000_000_000  # what is beyond is no time in seconds
_LARGEST = 1e18  # of a number: what is beyond is no int64
_REVIEW = pa.schema(
    {
        "user_id": pa.string(),
        "item_id": pa.string(),
        "rating": pa.float64(),
        "timestamp": pa.int64(),
        "summary": pa.string(),
        "reviewText": pa.string(),
        "votes": pa.int64(),  # of those who found it helpful
    }
)
_PRODUCT = pa.schema(dict.fromkeys(("item_id", "title", "brand", "categories"), pa.string()))
_REVIEWS = Reviews(interactions="{summary}. {reviewText}", most=10)


def _schema(*, has_products: bool, repeats: bool) -> Schema:
    features = {
        "brand": Feature(kind="categorical"),
        "categories": Feature(kind="multi", separator="|"),
    }
    text: dict[str, str | Reviews] = {"title": "{title}. {brand}"} if has_products else {}
    return Schema(
        users=EntitySchema(id="user_id"),
        items=ItemSchema(
            id="item_id",
            features=features if has_products else {},
            text=text | {"reviews": _REVIEWS},
        ),
        interactions=InteractionSchema(
            user="user_id",
            item="item_id",
            time="timestamp",
            labels=rating_labels(),
            repeats=repeats,
        ),
    )


def _records(path: Path, parse: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    """What `parse` makes of each line."""
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                # The products of 2014 are written as Python, not as JSON.
                is_python = line.startswith(b"{'")
                record = ast.literal_eval(line.decode()) if is_python else json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("is no JSON object")
                parsed = parse(record)
            except (json.JSONDecodeError, UnicodeDecodeError, SyntaxError) as error:
                raise UserError(f"{path}: line {number}: is not JSON: {error}") from None
            except ValueError as error:
                raise UserError(f"{path}: line {number}: {error}") from None
            yield parsed


def _first(record: dict[str, Any], *names: str) -> Any:
    """The value of the first key that is there."""
    for name in names:
        if record.get(name) not in (None, ""):
            return record[name]
    raise ValueError(f"has none of the keys {', '.join(names)}, of which one is needed")


def _number(record: dict[str, Any], *names: str) -> float:
    value = _first(record, *names)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) < _LARGEST:
        raise ValueError(f"'{value}' is no number, which {' or '.join(names)} must be")
    return number


def _text(value: Any) -> str | None:
    return str(value) if value else None


def _votes(record: dict[str, Any]) -> int | None:
    """2014: `helpful` [yes, all]; 2018: `vote` "1,234"; 2023: `helpful_vote`."""
    found = record.get("helpful_vote", record.get("vote", record.get("helpful")))
    if isinstance(found, list):
        found = found[0] if found else None
    return None if found is None else int(_number({"votes": str(found).replace(",", "")}, "votes"))


def _review(record: dict[str, Any]) -> tuple[Any, ...]:
    """A row of the interactions."""
    time = int(_number(record, "unixReviewTime", "timestamp"))
    is_of_2023 = "parent_asin" in record or "user_id" in record
    return (
        str(_first(record, "reviewerID", "user_id")),
        str(_first(record, "parent_asin", "asin")),
        _number(record, "overall", "rating"),
        time // 1000 if abs(time) > _MILLISECONDS else time,
        _text(record.get("title" if is_of_2023 else "summary")),
        _text(record.get("text" if is_of_2023 else "reviewText")),
        _votes(record),
    )


def _product(record: dict[str, Any]) -> tuple[Any, ...]:
    """A row of the items. Of categories within categories all are listed."""
    found = record.get("categories") or record.get("category") or []
    nested = [name for part in found for name in (part if isinstance(part, list) else [part])]
    names = dict.fromkeys(str(name).replace("|", "/").strip() for name in nested)
    return (
        str(_first(record, "parent_asin", "asin")),
        _text(record.get("title")),
        _text(record.get("brand") or record.get("store")),
        _text("|".join(names)),
    )


def _blocks(rows: Iterator[tuple[Any, ...]], schema: pa.Schema) -> Iterator[pa.Table]:
    while block := list(islice(rows, _ROWS)):
        columns = zip(*block, strict=True)
        arrays = [pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)]
        yield pa.Table.from_arrays(arrays, schema=schema)


def convert_amazon(
    path: Path | str, out: Path | str, *, meta: Path | None = None
) -> dict[str, int]:
    """Write the data folder `out` from a file of reviews, and one of products; -> rows of each."""
    path = Path(path)
    with new_folder(out) as folder:
        left: dict[str, None] = {}  # items without a row, in the order of their first review
        pairs: list[NDArray[np.int64]] = []  # a hash of each review's user and item
        for rows in _blocks(_records(path, _review), _REVIEW):
            users, items = rows["user_id"].to_pylist(), rows["item_id"].to_pylist()
            left |= dict.fromkeys(items)
            pairs.append(np.array([hash(pair) for pair in zip(users, items, strict=True)]))
            folder.add("interactions", rows)
        if not left:
            raise UserError(f"{path}: has no data rows")
        if meta is not None:
            for rows in _blocks(_known(_records(meta, _product), left), _PRODUCT):
                folder.add("items", rows)
        names = _PRODUCT.names if meta is not None else ["item_id"]
        empty = (None,) * (len(names) - 1)
        schema = pa.schema([_PRODUCT.field(name) for name in names])
        for rows in _blocks(((item, *empty) for item in left), schema):
            folder.add("items", rows)
        every_pair = np.concatenate(pairs)
        repeats = len(np.unique(every_pair)) < len(every_pair)
        folder.write_schema(_schema(has_products=meta is not None, repeats=repeats))
    return folder.num_rows


def _known(products: Iterator[tuple[Any, ...]], left: dict[str, None]) -> Iterator[tuple[Any, ...]]:
    """The products among the items `left`, each once; what is found is left no more."""
    for product in products:
        if product[0] in left:
            del left[product[0]]
            yield product
