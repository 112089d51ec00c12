"""What is known of a user, and what is a fair guess where nothing is."""

from dataclasses import replace

import numpy as np
import pytest
import tiny

from flm_torchrec.data.dataset import LATER, TRAIN, Column, Dataset, Entity
from flm_torchrec.data.known import made_by, recent_popularity
from flm_torchrec.data.sampling import histories


def with_users(dataset: Dataset, **changes: object) -> Dataset:
    assert dataset.users is not None
    return replace(dataset, users=replace(dataset.users, **changes))


def nameless(dataset: Dataset, genders: list[int]) -> Dataset:
    """Users without an id that training knows."""
    assert dataset.users is not None
    columns = {
        "user_id": tiny.single([0] * len(genders), 7),
        "gender": tiny.single(genders, 3),
    }
    return with_users(dataset, columns=columns)


def test_a_user_is_known_by_events_then_by_features_then_not_at_all() -> None:
    events = {user: met for user, met in tiny.EVENTS.items() if user in (1, 2, 6)}
    dataset = nameless(tiny.dataset(events), [0, 0, 1, 2, 0, 0, 1])
    seqs = histories(dataset.interactions, before_part=LATER + 1)
    ways = made_by(dataset, seqs, window=4).tolist()
    assert ways[1:] == ["history", "history", "features", "popularity", "popularity", "history"]
    ways = made_by(dataset, seqs, window=0).tolist()
    assert ways[1:] == [
        *("popularity", "features", "features", "popularity", "popularity", "features")
    ]


def test_an_id_that_training_met_is_a_feature() -> None:
    dataset = with_users(
        tiny.dataset(),
        columns={"user_id": tiny.single([0, 1, 0, 0, 0, 0, 0], 7)},
    )
    none = histories(dataset.interactions, before_part=TRAIN)
    assert made_by(dataset, none, window=4)[1:3].tolist() == ["features", "popularity"]


@pytest.mark.parametrize("what", ["numbers", "vectors", "several"])
def test_numbers_vectors_and_features_of_several_values_are_known_too(what: str) -> None:
    one = np.zeros((7, 2), dtype=np.float32)
    one[2] = 0.5
    several = Column(
        values=np.array([0, 1]), offsets=np.array([0, 0, 1, 2, *[2] * 4]), num_embeddings=2
    )
    changes: dict[str, object] = {
        "numbers": {"numbers": one},
        "vectors": {"vectors": {"taste": one}},
        "several": {},
    }[what]
    columns = {
        "user_id": tiny.single([0] * 7, 7),
        **({"tags": several} if what == "several" else {}),
    }
    dataset = with_users(tiny.dataset(), columns=columns, **changes)
    none = histories(dataset.interactions, before_part=TRAIN)
    ways = made_by(dataset, none, window=4).tolist()
    assert [row for row, way in enumerate(ways) if way == "features"] == [2]


def test_recent_popularity_is_that_of_alike_users_backed_by_everybodys() -> None:
    # The latest half: two of user 3, then all of users 4 (who tells nothing), 5 and 6.
    dataset = nameless(tiny.dataset(), [0, 1, 1, 1, 0, 2, 2])
    met = dataset.interactions
    latest = np.bincount(met.item[-14:], minlength=9)
    alike = np.bincount(met.item[met.user == 4], minlength=9)
    want = alike + 10 * latest / 14
    found = recent_popularity(dataset, share=0.5, prior=10)
    assert found.tolist() == pytest.approx((want / want.sum()).tolist())
    assert found[0] == 0


def test_recent_popularity_counts_what_was_wanted_and_held() -> None:
    dataset = tiny.dataset({1: [(1, 5), (2, 5), (3, 5), (4, 5)], 2: [(5, 1), (6, 1)]})
    met = dataset.interactions
    positive = np.array([True, True, True, False, True, True])
    part = np.where(np.arange(6) == 5, LATER, met.part).astype(np.int8)
    dataset = replace(dataset, interactions=replace(met, positive=positive, part=part))
    found = recent_popularity(dataset, share=0.5)
    assert np.flatnonzero(found).tolist() == [3, 5]
    nothing = replace(dataset, interactions=replace(met, positive=np.zeros(6, dtype=bool)))
    assert recent_popularity(nothing).tolist() == [0.0] * 9


def test_the_guess_is_a_distribution_over_the_items() -> None:
    dataset = tiny.dataset()
    assert isinstance(dataset.users, Entity)
    assert recent_popularity(dataset).sum() == pytest.approx(1)
