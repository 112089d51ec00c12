"""A data set made by hand: 6 users, 8 items, with features, texts and labels."""

from collections.abc import Mapping, Sequence

import numpy as np

from flm_torchrec.data.dataset import (
    TEST,
    TRAIN,
    VALIDATION,
    Column,
    Dataset,
    Entity,
    Interactions,
)
from flm_torchrec.data.schema import Schema

# Item 7 has no text, and item 8 is met in the test only.
TITLES = (
    "red car",
    "blue car",
    "red boat",
    "blue boat",
    "red plane",
    "blue plane",
    "",
    "old train",
)
GENRES = ((), (1,), (1, 2), (2,), (), (3,), (1, 3), (2, 3), (1,))  # row 0 first

# The items that each user met, with ratings, in order; of three and more the last is for the test
# and the one before it for validation.
Events = Mapping[int, Sequence[tuple[int, float | None]]]
EVENTS: Events = {
    1: [(1, 5), (2, 3), (3, 1), (4, None), (5, 5), (6, 3), (7, 1)],
    2: [(3, 1), (1, 5), (2, None), (4, 3), (5, 5)],
    3: [(2, 5), (4, 5), (6, 1), (8, 5)],
    4: [(4, 1), (5, 3), (6, 5), (7, 5), (1, 1), (2, 3)],
    5: [(5, None), (6, 3), (7, 1), (1, 5)],
    6: [(6, 5), (1, 1)],
}


def schema(*, labels: bool = True, repeats: bool = False) -> Schema:
    declared = {"like": {"kind": "binary", "value": "rating >= 4"}, "rating": {"kind": "ordinal"}}
    return Schema.model_validate(
        {
            "users": {"id": "user_id", "features": {"gender": "categorical"}},
            "items": {
                "id": "item_id",
                "features": {"genres": {"kind": "multi", "separator": "|"}},
                "text": {"title": "{title}"},
            },
            "interactions": {
                "user": "user_id",
                "item": "item_id",
                "time": "time",
                "labels": declared if labels else {},
                "repeats": repeats,
            },
        }
    )


def single(values: Sequence[int], num_embeddings: int) -> Column:
    return Column(
        values=np.array(values, dtype=np.int64),
        offsets=None,
        num_embeddings=num_embeddings,
    )


def interactions(events: Events, *, num_users: int, labels: bool) -> Interactions:
    flat = [(user, *event) for user in sorted(events) for event in events[user]]
    user, item, ratings = (np.array(column) for column in zip(*flat, strict=True))
    rating = ratings.astype(np.float32)  # None becomes NaN
    like = np.where(np.isnan(rating), np.nan, rating >= 4).astype(np.float32)
    part = []
    for _, met in sorted(events.items()):
        held_out = [VALIDATION, TEST] if len(met) > 2 else []
        part += [TRAIN] * (len(met) - len(held_out)) + held_out
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=num_users + 1))])
    return Interactions(
        user=user,
        item=item,
        time=np.arange(len(user)),
        source_row=np.arange(len(user)),
        part=np.array(part, dtype=np.int8),
        positive=np.ones(len(user), dtype=bool),
        labels={"like": like, "rating": rating} if labels else {},
        context={},
        numbers=np.zeros((len(user), 0), dtype=np.float32),
        events=np.arange(len(user)),
        user_offsets=offsets,
        before=np.arange(len(user)) - offsets[user],
    )


def dataset(
    events: Events = EVENTS,
    *,
    titles: Sequence[str] = TITLES,
    labels: bool = True,
    repeats: bool = False,
) -> Dataset:
    num_users = max(events)
    met = interactions(events, num_users=num_users, labels=labels)
    genders = [0, *(1 + (user - 1) % 2 for user in range(1, num_users + 1))]
    trained = np.unique(met.item[met.part == TRAIN])
    genres = Column(
        values=np.concatenate([np.array(row, dtype=np.int64) for row in GENRES]),
        offsets=np.cumsum([0, *(len(row) for row in GENRES)]),
        num_embeddings=4,
    )
    levels = {}
    if labels:
        rating = met.labels["rating"][met.part == TRAIN]
        levels["rating"] = np.unique(rating[~np.isnan(rating)])
    return Dataset(
        schema=schema(labels=labels, repeats=repeats),
        users=Entity(
            ids=np.array([None, *(f"u{user}" for user in range(1, num_users + 1))], dtype=object),
            columns={
                "user_id": single(range(num_users + 1), num_users + 1),
                "gender": single(genders, 3),
            },
            numbers=np.zeros((num_users + 1, 0), dtype=np.float32),
            vectors={},
            text={},
        ),
        items=Entity(
            ids=np.array([None, *(f"i{item}" for item in range(1, 9))], dtype=object),
            columns={
                "item_id": single([i if i in trained else 0 for i in range(9)], 9),
                "genres": genres,
            },
            numbers=np.zeros((9, 0), dtype=np.float32),
            vectors={},
            text={"title": ["", *titles]},
        ),
        interactions=met,
        levels=levels,
        moments={},
        corpus=[],
        fingerprint="tiny",
    )


def cycles(*, users: int = 12, length: int = 8) -> Events:
    """A planted signal: after item i comes item i + 1; even items are liked, odd ones are not."""
    met = {user: [(user + step) % 8 + 1 for step in range(length)] for user in range(1, users + 1)}
    return {user: [(item, 1 + 4 * (item % 2 == 0)) for item in met[user]] for user in met}
