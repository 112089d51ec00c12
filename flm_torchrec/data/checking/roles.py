"""Which columns say who, what, when and what came of it, guessed from names and values."""

import re
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa

from flm_torchrec.data.checking.profile import Profile, plain_name
from flm_torchrec.data.compute import pc
from flm_torchrec.data.predicate import parse_predicate
from flm_torchrec.data.reading.tables import Table
from flm_torchrec.data.schema import Label

_MILLISECONDS = 1e11  # as seconds the year 5138, as milliseconds 1973
_FIRST_TIME, _LAST_TIME = 3e8, 4.1e9  # 1979 and 2099 in seconds
_USER_WORDS = ("user", "reviewer", "customer", "visitor", "member", "account", "uid", "client")
_ITEM_WORDS = (
    *("item", "movie", "product", "asin", "parent_asin", "news", "book", "article", "video"),
    *("track", "song", "artist", "sku", "iid", "ad", "adgroup", "goods", "business", "recipe"),
    *("post", "app", "game", "course", "job", "hotel", "anime", "document", "content"),
)
_SESSION_WORDS = ("session", "device", "cookie")
_TIME_WORDS = frozenset(("time", "timestamp", "ts", "date", "datetime", "unix", "at"))
_CLICKS = ("click", "clicked", "is_click", "clk", "clicks", "is_clicked")
_CONVERSIONS = (
    *("conversion", "converted", "is_conversion", "purchase", "purchased", "is_purchase", "buy"),
    *("bought", "order", "ordered", "cart", "is_attributed", "install", "installed", "cvr", "pay"),
)
_OUTCOMES = (
    *("label", "like", "liked", "is_like", "target", "y", "share", "shared", "follow", "is_follow"),
    *("forward", "is_forward", "comment", "watched", "finish", "finished", "long_view", "engaged"),
    *("response", "hate", "is_hate", "favorite", "saved", "skip", "skipped", "is_share"),
)
_RATINGS = ("rating", "ratings", "stars", "star_rating", "score", "overall", "rate", "grade")
_AMOUNTS = (
    *("watch_time", "watch_ratio", "dwell", "dwell_time", "play_time", "playtime", "play_count"),
    *("listen_count", "hours_played", "play_duration", "playing_time", "plays"),
)
_EVENTS = ("event", "event_type", "action", "action_type", "behavior", "behaviour", "behavior_type")
_MOST_LEVELS = 20


def find_ids(
    interactions: Mapping[str, Profile], catalogue: Mapping[str, Profile], *, of_users: bool
) -> tuple[str, str] | None:
    """The column of the interactions that holds ids of the catalogue, and the catalogue's own.

    Without a catalogue the name decides; with one also whether the values are found there.
    """
    words = _USER_WORDS if of_users else _ITEM_WORDS
    may_be = [column for column in interactions.values() if column.is_number or column.is_text]
    if not catalogue:
        named = {column.name: _id_points(column.name, words) for column in may_be}
        if of_users and not any(named.values()):
            named = {name: _id_points(name, _SESSION_WORDS) for name in named}
        best = max(named, key=lambda name: named[name], default=None)
        return (best, best) if best is not None and named[best] else None
    scores: dict[tuple[str, str], float] = {}
    for own in _unique(catalogue):
        known = own.values.cast(pa.large_string())
        for column in may_be:
            found, covered = _joined(column.values.cast(pa.large_string()), known)
            points = _id_points(column.name, words)
            same = 0.5 * (plain_name(column.name) == plain_name(own.name))
            joins = found > 0 and (points or same or (found >= 0.9 and covered >= 0.05))
            if joins or (points and _id_points(own.name, words)):
                scores[column.name, own.name] = points + same + found * covered
    return max(scores, key=lambda pair: scores[pair], default=None)


def _id_points(name: str, words: Iterable[str]) -> float:
    name = plain_name(name)
    for place, word in enumerate(words):
        if name in (word, f"{word}_id", f"{word}id"):
            return 2.0 - place / 100
    ends = tuple(f"{word}_id" for word in words)
    return 1.0 if name.endswith(ends) else 0.0


def _unique(catalogue: Mapping[str, Profile]) -> list[Profile]:
    """Columns that may be the id: no value twice; if there is none, all that are named so."""
    singles = [p for p in catalogue.values() if p.is_number or p.is_text]
    unique = [p for p in singles if p.distinct == p.rows > 0 and not _is_decimal(p)]
    return unique or [p for p in singles if plain_name(p.name).endswith("id")]


def _is_decimal(profile: Profile) -> bool:
    return pa.types.is_float64(profile.values.type)


def _joined(ids: pa.Array, known: pa.Array) -> tuple[float, float]:
    """Which part of the ids is known, and which part of the known ones is met."""
    distinct = pc.unique(ids)
    found = pc.sum(pc.is_in(distinct, known)).as_py() or 0
    return found / max(1, len(distinct)), found / max(1, len(known))


def find_time(columns: Mapping[str, Profile]) -> str | None:
    """The column that says when: a time by its name and values, or by its values alone."""
    scores = {}
    for column in columns.values():
        named = bool(_TIME_WORDS & set(plain_name(column.name).split("_")))
        numbers = column.is_number and len(column.values) and _is_span(column)
        if column.is_time or numbers or (named and column.is_number and column.distinct > 1):
            scores[column.name] = 2 * named + 1.5 * column.is_time + bool(numbers)
    return max(scores, key=lambda name: scores[name], default=None)


def is_another_time(column: Profile) -> bool:
    """Whether a column is a time beside the one that was chosen."""
    words = plain_name(column.name).split("_")
    return column.is_time or (words[-1] in _TIME_WORDS and column.distinct > 100)


def in_milliseconds(column: Profile) -> bool:
    """Whether times are numbers too large for seconds."""
    return column.is_number and pc.max(column.values).as_py() > _MILLISECONDS


def _is_span(column: Profile) -> bool:
    low, high = pc.min_max(column.values).values()
    low, high = low.as_py(), high.as_py()
    seconds = low >= _FIRST_TIME and high <= _LAST_TIME
    milliseconds = low >= 1000 * _FIRST_TIME and high <= 1000 * _LAST_TIME
    return seconds or milliseconds


def find_labels(columns: Mapping[str, Profile]) -> dict[str, Label]:
    """Labels by name -> what they are; a rating also gives `like`, its upper third."""
    labels: dict[str, Label] = {}
    for name, column in columns.items():
        plain = plain_name(name)
        if column.is_binary and plain in (*_CLICKS, *_CONVERSIONS, *_OUTCOMES):
            labels[name] = Label(kind="binary")
        elif column.is_number and plain in _RATINGS and column.distinct > 1:
            if column.distinct > _MOST_LEVELS:
                labels[name] = Label(kind="real")
                continue
            like = "like" if "like" not in columns else f"high_{plain}"
            value = f"{name} >= {_upper_third(column.levels()):g}"
            labels[like] = Label(kind="binary", value=value)
            labels[name] = Label(kind="ordinal")
        elif column.is_number and plain in _AMOUNTS and column.distinct > 1:
            labels[name] = Label(kind="real")
        elif column.is_text and plain in _EVENTS and 2 <= column.distinct <= 10:
            labels |= {
                event: Label(kind="binary", value=f"{name} == {_quoted(event)}")
                for event in _rarer(column)
                if event not in columns
            }
    if not labels:
        zero_one = [name for name, column in columns.items() if column.is_binary]
        labels = {name: Label(kind="binary") for name in zero_one if len(zero_one) == 1}
    return labels


def _upper_third(levels: list[float]) -> float:
    start = levels[0] + 2 / 3 * (levels[-1] - levels[0])
    return min(level for level in levels if level >= start - 1e-9)


def _rarer(column: Profile) -> list[str]:
    """All values but the most frequent, as far as a label can have their names."""
    counts = pc.value_counts(column.values).to_pylist()
    counts.sort(key=lambda pair: -pair["counts"])
    names = [str(pair["values"]) for pair in counts[1:]]
    return [name for name in names if re.fullmatch(r"\w[\w-]*( [\w-]+)*", name)]


def _quoted(value: str) -> str:
    return value if value.isidentifier() else f"'{value}'"


def clicks(labels: Iterable[str]) -> str | None:
    """The label that says whether what was shown was clicked."""
    return next((name for name in labels if plain_name(name) in _CLICKS), None)


def is_conversion(name: str) -> bool:
    """Whether a label says what a click led to."""
    return plain_name(name) in _CONVERSIONS


def used_by(labels: Mapping[str, Label], columns: Iterable[str]) -> set[str]:
    """The columns that labels are made of."""
    predicates = [parse_predicate(label.value) for label in labels.values() if label.value]
    tested = {comparison.column for predicate in predicates for comparison in predicate}
    return {name for name in columns if name in labels or name in tested}


def groups_of_clicks(sample: Table, user: str, time: str, click: str) -> bool:
    """Whether rows come in groups of one user and time of which some are clicked, some are not."""
    keys = [
        pc.dictionary_encode(sample.column(name)).indices.fill_null(-1).to_numpy()
        for name in (user, time)
    ]
    is_hit = pc.equal(sample.numbers(click), 1).fill_null(False)
    _, group = np.unique((keys[0].astype(np.int64) << 32) + keys[1], return_inverse=True)
    shown = np.bincount(group)
    hits = np.bincount(group, weights=is_hit.to_numpy(zero_copy_only=False))
    is_choice = (hits > 0) & (shown > hits)
    return bool(shown.mean() >= 2 and hits[is_choice].sum() >= hits.sum() / 2)
