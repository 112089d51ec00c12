"""A synthetic log of what users were shown, clicked and bought, like Ali-CCP's."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.schema import Feature, InteractionSchema, Label, Schema
from flm_torchrec.data.sources.catalogue import ITEMS, SEGMENTS, USERS, Items, Users
from flm_torchrec.data.sources.folder import NewFolder
from flm_torchrec.data.sources.planted import BestAUC, Effects, Outcome, in_test, sigmoid, zipf

_SHOWN = 10  # items at a time
_REQUESTS = 20_000  # of a block
_START = 1_600_000_000  # seconds since 1970
_LONGEST_GAP = 60  # seconds between requests, on average half of it
_USER_POWER, _ITEM_POWER = 0.5, 0.7  # of how often users come and items are shown
_DEVICES = ("phone", "desktop", "tablet", "tv")
_CLICK = {"taste": 0.4, "quality": 0.2, "position": 0.15, "device": 0.15, "hour": 0.1}
_CLICK_RATE, _CLICK_AUC = 0.2, 0.78
_CONVERSION = {"price": 0.35, "quality": 0.3, "taste": 0.2, "device": 0.15}
_CONVERSION_RATE, _CONVERSION_AUC = 0.3, 0.75

SCHEMA = Schema(
    users=USERS,
    items=ITEMS,
    interactions=InteractionSchema(
        user="user_id",
        item="item_id",
        time="timestamp",
        context={name: Feature(kind="categorical") for name in ("device", "hour", "position")},
        labels={
            "click": Label(kind="binary"),
            "conversion": Label(kind="binary", where="click == 1"),
        },
        history="click == 1",
        positives="click == 1",
        negatives="logged",
        order="by_log",
    ),
)


@dataclass(frozen=True, slots=True)
class _Rows:
    """A block of the log: n impressions, each column (n,)."""

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    time: NDArray[np.int64]
    position: NDArray[np.int64]
    device: NDArray[np.int64]

    @property
    def hour(self) -> NDArray[np.int64]:
        return self.time // 3600 % 24


class _World:
    """The hidden parameters that clicks and conversions are drawn by."""

    def __init__(self, rng: np.random.Generator, users: int, items: int) -> None:
        self.users, self.items = Users(rng, users), Items(rng, items)
        clusters = self.items.clusters
        self.device = rng.standard_normal((len(_DEVICES), clusters)).astype(np.float32)
        self.hour = rng.standard_normal((24, SEGMENTS)).astype(np.float32)
        self.thrift = rng.standard_normal(SEGMENTS).astype(np.float32)
        sample = self.effects(self.draw(rng, _REQUESTS, _START))
        self.click = Outcome(_CLICK, sample, rate=_CLICK_RATE, best_auc=_CLICK_AUC)
        is_clicked = rng.random(len(sample["taste"])) < sigmoid(self.click.logits(sample))
        self.conversion = Outcome(
            _CONVERSION,
            {name: effect[is_clicked] for name, effect in sample.items()},
            rate=_CONVERSION_RATE,
            best_auc=_CONVERSION_AUC,
        )

    def draw(self, rng: np.random.Generator, requests: int, start: int) -> _Rows:
        """What is shown in `requests` requests after `start`, in time order."""
        count = requests * _SHOWN
        time = start + np.cumsum(rng.integers(1, _LONGEST_GAP, requests))
        user = zipf(rng, len(self.users.age), requests, _USER_POWER)
        device = zipf(rng, len(_DEVICES), requests, 0.8)
        return _Rows(
            user=np.repeat(user, _SHOWN),
            item=zipf(rng, len(self.items.cluster), count, _ITEM_POWER),
            time=np.repeat(time, _SHOWN),
            position=np.tile(np.arange(1, _SHOWN + 1), requests),
            device=np.repeat(device, _SHOWN),
        )

    def effects(self, rows: _Rows) -> Effects:
        """What each cause adds to the logits, before it is scaled."""
        users, items = self.users, self.items
        segment = users.segment[rows.user]
        taste = np.einsum("nd,nd->n", users.factor[rows.user], items.factor[rows.item])
        effects = {
            "taste": taste,
            "quality": items.quality[rows.item],
            "position": -np.log(rows.position),
            "device": self.device[rows.device, items.cluster[rows.item]],
            "hour": self.hour[rows.hour, segment],
            "price": -self.thrift[segment] * (items.log_price[rows.item] - 3.0),
        }
        return {name: effect.astype(np.float32) for name, effect in effects.items()}


def _table(rows: _Rows, click: NDArray[np.bool_], conversion: NDArray[np.bool_]) -> pa.Table:
    devices = pa.array(_DEVICES)
    return pa.table(
        {
            "user_id": pa.array(rows.user + 1),
            "item_id": pa.array(rows.item + 1),
            "timestamp": pa.array(rows.time),
            "device": devices.take(pa.array(rows.device)),
            "hour": pa.array(rows.hour, pa.int8()),
            "position": pa.array(rows.position, pa.int8()),
            "click": pa.array(click.astype(np.int8)),
            "conversion": pa.array(conversion.astype(np.int8)),
        }
    )


def write_impressions(
    folder: NewFolder, *, users: int, items: int, interactions: int, seed: int
) -> dict[str, Any]:
    """Fill `folder`; -> what is true of it."""
    rng = np.random.default_rng(seed)
    world = _World(rng, users, items)
    folder.add("users", world.users.table())
    folder.add("items", world.items.table())
    best = {"click": BestAUC(), "conversion": BestAUC()}
    clock = _START
    for first in range(0, interactions, _REQUESTS * _SHOWN):
        count = min(_REQUESTS * _SHOWN, interactions - first)
        rows = world.draw(rng, -(-count // _SHOWN), clock)
        clock = int(rows.time[-1])
        effects = world.effects(rows)
        p = {
            "click": sigmoid(world.click.logits(effects)),
            "conversion": sigmoid(world.conversion.logits(effects)),
        }
        click, conversion = (rng.random(len(q), np.float32) < q for q in p.values())
        conversion &= click
        is_test = in_test(first, count, interactions, together=_SHOWN)
        best["click"].add(p["click"][:count], click[:count], is_test)
        there = click[:count]
        best["conversion"].add(
            p["conversion"][:count][there], conversion[:count][there], is_test[there]
        )
        folder.add("interactions", _table(rows, click, conversion).slice(0, count))
    folder.write_schema(SCHEMA)
    return {
        "best_auc": {name: found.result() for name, found in best.items()},
        "shares_of_variance": {"click": _CLICK, "conversion": _CONVERSION},
        "clusters": world.items.clusters,
    }
