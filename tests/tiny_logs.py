"""Data sets made by hand that are no sequences: a log of clicks, impressions, a corpus."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tiny
from numpy.typing import NDArray

from flm_torchrec.data.dataset import TEST, TRAIN, VALIDATION, Dataset, Interactions
from flm_torchrec.data.schema import Schema


def parts(rows: int) -> NDArray[np.int8]:
    """The last tenth is the test, the tenth before validation."""
    part = np.full(rows, TRAIN, dtype=np.int8)
    part[-(rows // 5) :], part[-(rows // 10) :] = VALIDATION, TEST
    return part


def dataset(schema: Mapping[str, Any], interactions: Interactions, **more: Any) -> Dataset:
    """Without users and items, unless they are among `more`."""
    nothing = {"users": None, "items": None, "levels": {}, "moments": {}, "corpus": []}
    return Dataset(
        schema=Schema.model_validate(schema),
        interactions=interactions,
        fingerprint="tiny",
        **(nothing | more),
    )


def interactions(rows: int, **more: Any) -> Interactions:
    """Of nobody with nothing, unless `more` says who with what."""
    zeros = np.zeros(rows, dtype=np.int64)
    fields = {
        "user": zeros,
        "item": zeros,
        "time": np.arange(rows),
        "source_row": np.arange(rows),
        "part": parts(rows),
        "positive": np.ones(rows, dtype=bool),
        "labels": {},
        "context": {},
        "numbers": np.zeros((rows, 0), dtype=np.float32),
        "events": zeros[:0],
        "user_offsets": np.zeros(2, dtype=np.int64),
        "before": zeros,
    }
    return Interactions(**(fields | more))


def clicks(rows: int = 100) -> Dataset:
    """Context alone. A click depends on device and hour together; what was paid for one, on a
    number."""
    rng = np.random.default_rng(0)
    device, hour = rng.integers(0, 3, rows), rng.integers(0, 4, rows)
    numbers = rng.uniform(-1, 1, (rows, 1)).astype(np.float32)
    click = ((device + hour) % 2).astype(np.float32)
    paid = np.where(click > 0, 10 + 5 * numbers[:, 0], np.nan).astype(np.float32)
    schema = {
        "interactions": {
            "context": {"device": "categorical", "hour": "categorical", "price": "numeric"},
            "labels": {"click": "binary", "paid": {"kind": "real", "where": "click == 1"}},
            "history": "none",
            "order": "by_log",
        }
    }
    met = interactions(
        rows,
        labels={"click": click, "paid": paid},
        context={"device": tiny.single(device.tolist(), 3), "hour": tiny.single(hour.tolist(), 4)},
        numbers=numbers,
    )
    return dataset(schema, met, moments={"paid": (10.0, 3.0)})


def impressions(shows: int = 40) -> Dataset:
    """Each time one of the 6 users is shown 4 of the 8 items; items of the user's own parity are
    clicked and enter the history."""
    rng = np.random.default_rng(0)
    users = rng.integers(1, 7, shows)
    shown = np.stack([rng.permutation(np.arange(1, 9))[:4] for _ in users])
    user, item, time = users.repeat(4), shown.reshape(-1), np.arange(shows).repeat(4)
    positive = (item - user) % 2 == 0
    events = np.flatnonzero(positive)
    events = events[np.argsort(user[events], kind="stable")]
    earlier = (user[:, None] == user[events]) & (time[:, None] > time[events])
    base = tiny.dataset(labels=False)
    schema = base.schema.model_dump(mode="json")
    schema["interactions"] |= {
        "labels": {"click": {"kind": "binary"}},
        "history": "click == 1",
        "positives": "click == 1",
        "negatives": "logged",
        "order": "by_log",
        "repeats": True,
    }
    met = interactions(
        len(user),
        user=user,
        item=item,
        time=time,
        positive=positive,
        labels={"click": positive.astype(np.float32)},
        events=events,
        user_offsets=np.append(0, np.bincount(user[events], minlength=7).cumsum()),
        before=earlier.sum(1),
    )
    return dataset(schema, met, users=base.users, items=base.items)


def corpus(texts: Sequence[str]) -> Dataset:
    """Texts of no item, and nothing else."""
    return dataset({"corpus": "{text}"}, interactions(0), corpus=list(texts))


def with_labels(data: Dataset, declared: Mapping[str, Any], **values: float) -> Dataset:
    """`data` with other labels, each of one value."""
    schema = data.schema.model_dump(mode="json")
    schema["interactions"]["labels"] = dict(declared)
    size = len(data.interactions.user)
    labels = {name: np.full(size, value, dtype=np.float32) for name, value in values.items()}
    return replace(
        data,
        schema=Schema.model_validate(schema),
        interactions=replace(data.interactions, labels=labels),
        levels={},
    )


def with_views(data: Dataset) -> Dataset:
    """`data` with a second text and a vector for most of its items."""
    assert data.items is not None
    num_items = len(data.items.ids)
    plots = ["", "old", "", *["blue train"] * (num_items - 3)]
    image = np.random.default_rng(0).normal(size=(num_items, 3)).astype(np.float32)
    image[[0, 3]] = 0
    items = replace(data.items, text={**data.items.text, "plot": plots}, vectors={"image": image})
    return replace(data, items=items)
