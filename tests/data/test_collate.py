from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from flm_torchrec.data.collate import Collator
from flm_torchrec.data.kjt import features_kjt
from flm_torchrec.data.negatives import AllItems, PopularItems
from flm_torchrec.data.sampling import UserSampler, Windows, histories, sequences
from flm_torchrec.data.told import scaled_labels

DATASET = tiny.dataset()
SEQS = sequences(DATASET.interactions, before_part=1)
EVENTS = histories(DATASET.interactions, before_part=1)
EVERY_ROW = np.arange(len(DATASET.interactions.user))
KEY = (0, 2, 0)


def windows(user, first, length, *, backwards=False) -> Windows:
    user = np.array(user)
    return Windows(
        user=user,
        first=np.array(first),
        length=np.array(length),
        total=SEQS.offsets[user + 1] - SEQS.offsets[user],
        is_reversed=np.full(len(user), backwards),
    )


# User 1 meets 3, 4, 5 and had met 1, 2; user 4 meets 5, 6, 7 and had met 4; user 6 meets 6, 1.
TWO = windows([1, 4], [2, 1], [3, 3])
PADDED = windows([6, 4], [0, 1], [2, 3])


def collator(dataset=DATASET, *, negatives=None, window=3, **more) -> Collator:
    every = AllItems(num_items=9)
    return Collator(dataset, EVENTS, window=window, negatives=negatives or every, text=None, **more)


def popular(count: int = 5) -> PopularItems:
    trained = DATASET.interactions.item[DATASET.interactions.part == 0]
    return PopularItems(np.bincount(trained, minlength=9), count=count, power=0.5)


def pairs(*columns) -> set[tuple[int, ...]]:
    return set(zip(*(column.tolist() for column in columns), strict=True))


def test_features_are_jagged_by_key():
    kjt = features_kjt(DATASET.items.columns, np.array([2, 0, 7, 8]))
    assert kjt.keys() == ["item_id", "genres"]
    assert kjt["item_id"].values().tolist() == [2, 0, 7, 0]  # 8 was never trained on
    assert kjt["item_id"].lengths().tolist() == [1, 1, 1, 1]
    assert kjt["genres"].values().tolist() == [1, 2, 2, 3, 1]
    assert kjt["genres"].lengths().tolist() == [2, 0, 2, 1]
    assert kjt.stride() == 4


def test_labels_are_scaled_to_lie_between_minus_1_and_1():
    like, rating = scaled_labels(DATASET, EVERY_ROW[:5]).T
    nan = pytest.approx(np.nan, nan_ok=True)
    assert like.tolist() == [1, -1, -1, nan, 1]
    assert rating.tolist() == [1, 0, -1, nan, 1]  # levels 1, 3, 5


def test_a_label_outside_the_levels_of_training_stays_within_the_scale():
    labels = {"rating": np.array([1, 3, 9, np.nan], dtype=np.float32)}
    interactions = replace(DATASET.interactions, labels=labels)
    levels = {"rating": np.array([1, 3], dtype=np.float32)}
    scaled = scaled_labels(replace(DATASET, interactions=interactions, levels=levels), np.arange(4))
    assert scaled[:, 0].tolist() == pytest.approx([-1, 1, 1, np.nan], nan_ok=True)


def test_users_and_their_histories():
    users = collator().batch(TWO, SEQS, rng_key=KEY).users
    assert users.features["user_id"].values().tolist() == [1, 4]
    assert users.features["gender"].values().tolist() == [1, 2]
    assert users.history.tolist() == [[3, 4, 5], [5, 6, 7]]
    assert users.num_events.tolist() == [3, 3]
    missing = [pytest.approx(np.nan, nan_ok=True)] * 2
    assert users.event_labels[0].tolist() == [[-1, -1], missing, [1, 1]]
    assert pairs(users.known_user, users.known_item) == {(0, 1), (0, 2), (1, 4)}


def test_every_event_is_an_edge_at_its_own_step():
    edges = collator().batch(TWO, SEQS, rng_key=KEY).edges
    assert edges.user.tolist() == [0, 0, 0, 1, 1, 1]
    assert edges.step.tolist() == [0, 1, 2, 0, 1, 2]
    assert edges.item.tolist() == [3, 4, 5, 5, 6, 7]
    assert edges.weight.tolist() == pytest.approx([1 / 6] * 6)
    assert edges.labels.tolist() == [[0, 1], [0, 0], [1, 5], [0, 3], [1, 5], [1, 5]]


def test_a_missing_label_weighs_nothing():
    edges = collator().batch(TWO, SEQS, rng_key=KEY).edges
    fifth = pytest.approx(1 / 5)
    assert edges.label_weight[:, 0].tolist() == [fifth, 0, fifth, fifth, fifth, fifth]
    assert (edges.label_weight[:, 0] == edges.label_weight[:, 1]).all()


def test_places_without_an_event_hold_the_unknown_item_and_weigh_nothing():
    batch = collator().batch(PADDED, SEQS, rng_key=KEY)
    assert batch.users.history.tolist() == [[6, 1, 0], [5, 6, 7]]
    assert batch.users.num_events.tolist() == [2, 3]
    assert batch.users.event_labels[0, 2].tolist() == [0, 0]
    assert batch.edges.item[2] == 0
    assert batch.edges.weight.tolist() == pytest.approx([0.2, 0.2, 0, 0.2, 0.2, 0.2])
    assert batch.edges.label_weight[2].tolist() == [0, 0]


def test_data_without_labels_have_edges_without_labels():
    dataset = tiny.dataset(labels=False)
    batch = collator(dataset).batch(TWO, SEQS, rng_key=KEY)
    assert batch.edges.labels.shape == batch.edges.label_weight.shape == (6, 0)
    assert batch.users.event_labels.shape == (2, 3, 1)


def test_what_lies_before_a_reversed_window_is_known():
    batch = collator().batch(windows([1], [2], [3], backwards=True), SEQS, rng_key=KEY)
    assert batch.users.history.tolist() == [[3, 2, 1]]
    assert pairs(batch.users.known_user, batch.users.known_item) == {(0, 5), (0, 4)}


@pytest.mark.parametrize("shuffle_ties", [False, True])
def test_an_edge_is_never_in_its_own_history(shuffle_ties):
    time = np.zeros_like(DATASET.interactions.time)
    tied = replace(DATASET, interactions=replace(DATASET.interactions, time=time))
    for negatives in (AllItems(num_items=9), popular()):
        draw = UserSampler(SEQS, users=6, window=3, reverse=0.5, shuffle_ties=shuffle_ties, seed=1)
        for step in range(10):
            batch = collator(tied, negatives=negatives).step(draw, step)
            for user, place, item, weight in zip(
                batch.edges.user,
                batch.edges.step,
                batch.edges.item,
                batch.edges.weight,
                strict=True,
            ):
                history = batch.users.history[user]
                if weight > 0:
                    assert history[place] == item
                    assert item not in history[:place]


def test_all_items_are_the_batch_and_row_0_is_unknown():
    items = collator().batch(TWO, SEQS, rng_key=KEY).items
    assert items.row.tolist() == items.first.tolist() == list(range(9))
    assert items.log_q.tolist() == [0.0] * 9
    assert items.features["genres"].lengths().tolist() == [0, 1, 2, 1, 0, 1, 2, 2, 1]


def test_sampled_items_are_what_was_met_then_padding_then_negatives():
    negatives = popular()
    for seed in range(5):
        items = collator(negatives=negatives).batch(TWO, SEQS, rng_key=(seed,)).items
        row = items.row.tolist()
        assert row[:7] == [0, 3, 4, 5, 6, 7, 0]
        assert len(row) == 1 + 2 * 3 + 5
        assert min(row[-5:]) > 0
        assert items.first.tolist() == [row.index(item) for item in row]
        expected = np.log(5 * negatives.q[row[-5:]])
        assert items.log_q.numpy() == pytest.approx(expected, rel=1e-5)
        ids = [item % 8 for item in row]  # 8 was never trained on: its id is unknown
        assert items.features["item_id"].values().tolist() == ids


def test_histories_and_known_items_point_to_the_first_rows_of_sampled_items():
    for seed in range(5):
        batch = collator(negatives=popular()).batch(TWO, SEQS, rng_key=(seed,))
        row = batch.items.row
        assert row[batch.users.history].tolist() == [[3, 4, 5], [5, 6, 7]]
        assert row[batch.edges.item].tolist() == [3, 4, 5, 5, 6, 7]
        known = batch.users.known_item
        assert (batch.items.first[known] == known).all()
        in_batch = {pair for pair in {(0, 1), (0, 2), (1, 4)} if pair[1] in row.tolist()}
        assert pairs(batch.users.known_user, row[known]) == in_batch


def halves(everyone: Windows, **more):
    return [
        collator(rank=rank, world_size=2, **more).batch(everyone, SEQS, rng_key=KEY)
        for rank in (0, 1)
    ]


def test_the_batch_of_one_rank_is_the_halves_of_two():
    whole = collator(aligned_rows=4).batch(PADDED, SEQS, rng_key=KEY)
    left, right = halves(PADDED, aligned_rows=2)
    for name in ("history", "num_events", "event_labels"):
        both = torch.cat([getattr(left.users, name), getattr(right.users, name)])
        assert (both == getattr(whole.users, name)).all()
    for name in ("step", "item", "labels"):
        both = torch.cat([getattr(left.edges, name), getattr(right.edges, name)])
        assert (both == getattr(whole.edges, name)).all()
    for name in ("weight", "label_weight"):
        both = torch.cat([getattr(left.edges, name), getattr(right.edges, name)])
        torch.testing.assert_close(both / 2, getattr(whole.edges, name))
    both = torch.stack([left.items.aligned, right.items.aligned], dim=1)
    assert both.reshape(-1).tolist() == whole.items.aligned.tolist()


def test_edges_are_aligned_once_each_and_only_where_they_are_ranked():
    positive = np.ones(len(DATASET.interactions.user), dtype=bool)
    positive[EVENTS.events[EVENTS.offsets[4] + 2]] = False
    liked = replace(DATASET, interactions=replace(DATASET.interactions, positive=positive))
    edges = collator(liked, aligned_edges=8).batch(PADDED, SEQS, rng_key=KEY).edges
    aligned = edges.aligned.tolist()
    assert sorted(aligned) == [-1] * 4 + [0, 1, 3, 5]
    assert (edges.weight[edges.aligned[edges.aligned >= 0]] > 0).all()
    few = collator(aligned_edges=2).batch(PADDED, SEQS, rng_key=KEY).edges.aligned.tolist()
    assert len(set(few)) == 2
    assert few == collator(aligned_edges=2).batch(PADDED, SEQS, rng_key=KEY).edges.aligned.tolist()


def test_weights_over_all_ranks_add_up_to_the_world_size():
    both = halves(PADDED)
    assert sum(half.edges.weight.sum().item() for half in both) == pytest.approx(2)
    by_label = sum(half.edges.label_weight.sum(0) for half in both)
    assert by_label.tolist() == pytest.approx([2, 2])


def test_each_rank_draws_negatives_of_its_own():
    left, right = (half.items.row[-20:].tolist() for half in halves(PADDED, negatives=popular(20)))
    shared, _ = popular(20).draw(np.random.default_rng(KEY), np.ones(1, np.int64))
    assert left != right
    assert shared.tolist() not in (left, right)


def test_what_enters_no_history_is_an_edge_and_leaves_no_gap():
    # Of the events of user 1 only the second and the third enter histories.
    is_event = np.ones(len(DATASET.interactions.user), dtype=bool)
    is_event[[0, 3, 4]] = False
    events = np.flatnonzero(is_event)
    behind = np.cumsum(is_event) - is_event
    offsets = np.searchsorted(DATASET.interactions.user[events], np.arange(8))
    interactions = replace(
        DATASET.interactions,
        events=events,
        user_offsets=offsets,
        before=behind - offsets[DATASET.interactions.user],
    )
    batch = collator(replace(DATASET, interactions=interactions), window=5).batch(
        windows([1], [0], [5]), SEQS, rng_key=KEY
    )
    assert batch.edges.item.tolist() == [1, 2, 3, 4, 5]
    assert batch.edges.step.tolist() == [0, 0, 1, 2, 2]
    assert batch.users.history.tolist() == [[2, 3, 0, 0, 0]]
    assert batch.users.num_events.tolist() == [2]


def test_a_label_that_always_holds_has_a_sampled_edge_for_each():
    schema = tiny.schema().model_dump()
    schema["interactions"]["labels"]["like"]["value"] = "always"
    dataset = replace(DATASET, schema=type(DATASET.schema).model_validate(schema))
    batch = collator(dataset).batch(TWO, SEQS, rng_key=KEY)
    edges = batch.edges
    assert edges.item[:6].tolist() == [3, 4, 5, 5, 6, 7]
    assert edges.user.tolist() == [0, 0, 0, 1, 1, 1] * 2
    assert edges.weight[6:].tolist() == [0] * 6
    assert edges.labels[6:].tolist() == [[0, 0]] * 6
    assert edges.label_weight[6:, 1].tolist() == [0] * 6
    assert edges.label_weight[:, 0].sum().item() == pytest.approx(1)
    first, second = edges.label_weight[:6, 0].sum(), edges.label_weight[6:, 0].sum()
    assert first.item() == pytest.approx(second.item())


def test_a_sampled_edge_has_neither_its_own_item_nor_one_met_by_its_user_or_by_nobody():
    schema = tiny.schema().model_dump()
    schema["interactions"]["labels"]["like"]["value"] = "always"
    dataset = replace(DATASET, schema=type(DATASET.schema).model_validate(schema))
    # By the end of the windows; item 8 is in no training.
    met = {0: {0, 1, 2, 3, 4, 5, 8}, 1: {0, 4, 5, 6, 7, 8}}
    for seed in range(20):
        edges = collator(dataset).batch(TWO, SEQS, rng_key=(seed,)).edges
        own, sampled = edges.label_weight[:, 0].reshape(2, 6).tolist()
        pairs_of = zip(edges.user[6:].tolist(), edges.item[6:].tolist(), strict=True)
        for (user, item), before, weight in zip(pairs_of, own, sampled, strict=True):
            assert (weight > 0) == (item not in met[user] and before > 0)


@pytest.mark.parametrize("negatives", [AllItems(num_items=9), popular()])
def test_edges_to_be_scored_have_their_own_items_features(negatives):
    maker = collator(negatives=negatives)
    rows = np.array([6, 5, 9, 13, 15, 21, 3, 4])
    for _ in range(2):  # what training keeps must not get in
        batch = maker.edge_batch(rows, EVENTS)
        ids = batch.items.features["item_id"].values()
        assert ids.tolist() == [row % 8 for row in batch.items.row.tolist()]
        trained = maker.batch(TWO, SEQS, rng_key=KEY)
        ids = trained.items.features["item_id"].values()
        assert ids.tolist() == [row % 8 for row in trained.items.row.tolist()]
