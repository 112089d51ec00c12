from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from flm_torchrec.data.collate import Collator
from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.negatives import NoItems
from flm_torchrec.data.sampling import LogSampler, histories

DATASET = tiny.dataset()
EVENTS = histories(DATASET.interactions, before_part=1)


def collator(dataset: Dataset = DATASET, *, rank=0, world_size=1) -> Collator:
    return Collator(
        dataset,
        EVENTS,
        window=3,
        negatives=NoItems(),
        text=None,
        rank=rank,
        world_size=world_size,
    )


def log_batch(rows, **more):
    return collator(**more).batch(np.array(rows), EVENTS, rng_key=(0,))


def test_rows_of_a_log_see_the_events_behind_them():
    # Rows 2 and 4 are user 1's third and fifth event, row 7 user 2's first.
    batch = log_batch([2, 4, 7])
    rows = batch.items.row
    assert rows[batch.edges.item].tolist() == [3, 5, 3]
    history = rows[batch.users.history]
    seen = [history[user, :step].tolist() for user, step in zip(*edge_places(batch), strict=True)]
    assert seen == [[1, 2], [2, 3, 4], []]


def edge_places(batch) -> tuple[list[int], list[int]]:
    return batch.edges.user.tolist(), batch.edges.step.tolist()


def test_rows_of_a_user_at_the_same_moment_share_its_history():
    interactions = replace(DATASET.interactions, before=np.zeros_like(DATASET.interactions.before))
    batch = log_batch([0, 1, 2, 8, 14], dataset=replace(DATASET, interactions=interactions))
    assert batch.edges.user.tolist() == [0, 0, 0, 1, 2]
    assert batch.users.features["user_id"].values().tolist() == [1, 2, 3]


def test_ranks_have_equally_many_users_of_a_log():
    left, right = (log_batch([0, 1, 2, 8, 14, 15], rank=rank, world_size=2) for rank in (0, 1))
    assert left.users.history.shape == right.users.history.shape == (3, 3)
    whole = log_batch([0, 1, 2, 8, 14, 15])
    both = torch.cat([left.items.row[left.edges.item], right.items.row[right.edges.item]])
    assert both.tolist() == whole.items.row[whole.edges.item].tolist()
    assert (left.edges.weight.sum() + right.edges.weight.sum()).item() == pytest.approx(2)


def test_edges_to_be_scored_see_no_event_of_their_own_part_or_later():
    # Row 6 is user 1's test event, row 5 its validation event; row 12 is in the middle of user 2.
    batch = collator().edge_batch(np.array([6, 5, 9]), EVENTS)
    rows = batch.items.row
    history = rows[batch.users.history]
    seen = [history[user, :step].tolist() for user, step in zip(*edge_places(batch), strict=True)]
    assert seen == [[3, 4, 5], [3, 4, 5], [3, 1]]
    assert batch.items.log_q.shape == (0,)


def test_what_was_shown_and_is_no_positive_is_a_negative():
    positive = DATASET.interactions.labels["like"] > 0
    dataset = replace(DATASET, interactions=replace(DATASET.interactions, positive=positive))
    edges = log_batch([0, 1, 2, 4], dataset=dataset).edges
    assert edges.weight.tolist() == [0.5, 0, 0, 0.5]
    assert edges.is_negative.tolist() == [False, True, True, False]


def with_context() -> Dataset:
    size = len(DATASET.interactions.user)
    device = tiny.single([row % 3 for row in range(size)], 3)
    numbers = np.arange(size, dtype=np.float32)[:, None] / size
    interactions = replace(DATASET.interactions, context={"device": device}, numbers=numbers)
    return replace(DATASET, interactions=interactions)


def test_edges_carry_their_context():
    edges = log_batch([2, 4, 7], dataset=with_context()).edges
    assert edges.context["device"].values().tolist() == [2, 1, 1]
    size = len(DATASET.interactions.user)
    assert edges.numbers[:, 0].tolist() == pytest.approx([2 / size, 4 / size, 7 / size])


def test_context_alone_makes_a_batch():
    bare = with_context().interactions
    zeros = np.zeros_like(bare.user)
    interactions = replace(
        bare, user=zeros, item=zeros, before=zeros, events=zeros[:0], user_offsets=zeros[:2]
    )
    dataset = replace(with_context(), users=None, items=None, interactions=interactions)
    seqs = histories(interactions, before_part=1)
    maker = Collator(dataset, seqs, window=0, negatives=NoItems(), text=None)
    batch = maker.step(LogSampler(np.arange(12), batch=4), 0)
    assert batch.users is None
    assert batch.items is None
    assert batch.edges.context.stride() == 4
    assert batch.edges.labels.shape == (4, 2)


def impressions(labels) -> Dataset:
    """The rows of users 1 and 2 in impressions of two, taken (1) or passed over (0)."""
    schema = tiny.schema(repeats=True).model_dump()
    schema["interactions"] |= {"order": "by_log", "negatives": "logged", "positives": "like == 1"}
    positive = np.zeros(len(DATASET.interactions.user), dtype=bool)
    positive[: len(labels)] = labels
    time = np.arange(len(positive)) // 2
    interactions = replace(DATASET.interactions, positive=positive, time=time)
    made = type(DATASET.schema).model_validate(schema)
    return replace(DATASET, schema=made, interactions=interactions)


def test_positives_with_nothing_beside_them_are_not_ranked():
    # Rows 0 and 1 are one impression, 2 and 3 the next, of which both were taken.
    edges = log_batch([0, 1, 2, 3, 4, 5], dataset=impressions([1, 0, 1, 1, 0, 1])).edges
    assert edges.impression.tolist() == [0, 0, 1, 1, 2, 2]
    assert edges.weight.tolist() == [0.5, 0, 0, 0, 0, 0.5]


def test_the_ranked_positives_of_all_ranks_share_their_weight():
    dataset = impressions([1, 0, 1, 1, 0, 1, 1, 0])
    both = [log_batch(range(8), dataset=dataset, rank=r, world_size=2).edges.weight for r in (0, 1)]
    whole = log_batch(range(8), dataset=dataset).edges.weight
    assert (torch.cat(both) / 2).tolist() == pytest.approx(whole.tolist())
