"""Edges that see all other events of their user, earlier or later: batches for a set encoder."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from flm_torchrec.data.collate import Collator
from flm_torchrec.data.dataset import TEST, TRAIN, VALIDATION, Dataset
from flm_torchrec.data.negatives import AllItems, NoItems
from flm_torchrec.data.sampling import Windows, histories, sequences

# User 1's events 1..7 at random in the parts; of the others all are trained on.
PART = [TRAIN, VALIDATION, TRAIN, TEST, TRAIN, TRAIN, TEST]


def random_split() -> Dataset:
    base = tiny.dataset()
    part = np.full(len(base.interactions.user), TRAIN, dtype=np.int8)
    part[: len(PART)] = PART
    return replace(base, interactions=replace(base.interactions, part=part))


DATASET = random_split()
TRAINED = histories(DATASET.interactions, before_part=VALIDATION)
WITH_VALIDATION = histories(DATASET.interactions, before_part=TEST)
SEQS = sequences(DATASET.interactions, before_part=VALIDATION)


def collator(dataset: Dataset = DATASET, *, window: int = 6, **more) -> Collator:
    more = {"negatives": NoItems(), **more}
    return Collator(dataset, TRAINED, window=window, text=None, any_order=True, **more)


def seen(batch) -> list[list[int]]:
    """The items that the state of each edge is made of."""
    history = batch.items.row[batch.users.history]
    places = zip(batch.edges.user.tolist(), batch.edges.step.tolist(), strict=True)
    counts = batch.users.num_events[batch.edges.user].tolist()
    return [
        [item for place, item in enumerate(history[user, :count].tolist()) if place != step]
        for (user, step), count in zip(places, counts, strict=True)
    ]


def window_of_user(user: int, length: int, *, first: int = 0) -> Windows:
    users = np.array([user])
    return Windows(
        user=users,
        first=np.array([first]),
        length=np.array([length]),
        total=np.diff(SEQS.offsets)[users],
        is_reversed=np.array([False]),
    )


def test_held_out_edges_see_all_that_their_user_met_in_training_whenever_it_was():
    rows = np.array([1, 3, 6])
    assert seen(collator().edge_batch(rows, TRAINED)) == [[1, 3, 5, 6]] * 3
    # The validation event was event 2 of the user.
    batch = collator().edge_batch(np.array([3, 6]), WITH_VALIDATION)
    assert seen(batch) == [[1, 2, 3, 5, 6]] * 2


def test_an_edge_does_not_see_itself():
    rows = np.array([0, 2, 4, 5, 7])
    assert seen(collator().edge_batch(rows, TRAINED)) == [
        [3, 5, 6],
        [1, 5, 6],
        [1, 3, 6],
        [1, 3, 5],
        [1, 2, 4, 5],
    ]


def test_of_more_events_than_the_window_the_latest_are_seen():
    rows = np.array([0, 1, 5])
    assert seen(collator(window=2).edge_batch(rows, TRAINED)) == [[5, 6], [5, 6], [5]]


def test_rows_of_a_log_train_on_all_other_events():
    batch = collator().batch(np.array([0, 2, 4, 7]), TRAINED, rng_key=(0,))
    assert seen(batch) == [[3, 5, 6], [1, 5, 6], [1, 3, 6], [1, 2, 4, 5]]
    assert batch.users.features["user_id"].values()[batch.edges.user].tolist() == [1, 1, 1, 2]


def test_every_event_of_a_window_is_an_edge_that_sees_the_others():
    batch = collator().batch(window_of_user(1, 4), SEQS, rng_key=(0,))
    assert seen(batch)[:4] == [[3, 5, 6], [1, 5, 6], [1, 3, 6], [1, 3, 5]]
    assert batch.edges.label_weight[4:].sum() == 0


def test_what_enters_no_history_sees_every_event_of_the_window():
    is_event = np.ones(len(DATASET.interactions.user), dtype=bool)
    is_event[[2, 4]] = False  # items 3 and 5 of user 1
    events = np.flatnonzero(is_event)
    user = DATASET.interactions.user
    offsets = np.searchsorted(user[events], np.arange(8))
    before = np.cumsum(is_event) - is_event - offsets[user]
    interactions = replace(DATASET.interactions, events=events, user_offsets=offsets, before=before)
    made = collator(replace(DATASET, interactions=interactions))
    batch = made.batch(window_of_user(1, 4), SEQS, rng_key=(0,))
    assert seen(batch)[:4] == [[6], [1, 6], [1, 6], [1]]
    of_log = histories(interactions, before_part=VALIDATION)
    assert seen(made.edge_batch(np.array([0, 2, 4, 5]), of_log)) == [[6], [1, 6], [1, 6], [1]]


def test_all_that_a_user_met_in_training_is_known():
    known = {}
    for first in (0, 2):
        made = collator(window=2, negatives=AllItems(num_items=9))
        users = made.batch(window_of_user(1, 2, first=first), SEQS, rng_key=(0,)).users
        known[first] = users.known_item.tolist()
    assert known[0] == known[2] == [1, 3, 5, 6]


@pytest.mark.parametrize("kind", ["log", "windows"])
def test_the_batch_of_one_rank_is_the_halves_of_two(kind):
    drawn = np.array([0, 2, 7, 8, 14, 20])
    if kind == "windows":
        drawn = Windows(
            user=np.array([1, 2]),
            first=np.array([0, 1]),
            length=np.array([4, 3]),
            total=np.array([4, 5]),
            is_reversed=np.array([True, False]),
        )
    seqs = TRAINED if kind == "log" else SEQS
    whole = collator().batch(drawn, seqs, rng_key=(0,))
    halves = [collator(rank=r, world_size=2).batch(drawn, seqs, rng_key=(0,)) for r in (0, 1)]
    assert [one for half in halves for one in seen(half)] == seen(whole)
    weights = torch.cat([half.edges.weight for half in halves])
    torch.testing.assert_close(weights / 2, whole.edges.weight)
