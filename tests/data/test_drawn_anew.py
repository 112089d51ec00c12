"""What is drawn anew of a window each time: the order of a second, how far ahead an item is
foretold, and whose id is hidden."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from tiny_domains import movies_and_music

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.data.collate import Collator
from flm_torchrec.data.dataset import Dataset, Interactions
from flm_torchrec.data.kjt import user_features
from flm_torchrec.data.negatives import AllItems
from flm_torchrec.data.sampling import UserSampler, Windows, histories, sequences

DATASET = tiny.dataset()
SEQS = sequences(DATASET.interactions, before_part=1)
EVENTS = histories(DATASET.interactions, before_part=1)


def collator(dataset: Dataset, **more: int) -> Collator:
    negatives = AllItems(num_items=9)
    return Collator(dataset, EVENTS, window=3, negatives=negatives, text=None, **more)


def window(first: int, *, backwards: bool, order: np.ndarray) -> Windows:
    """Three events of user 4."""
    return Windows(
        user=np.array([4]),
        first=np.array([first]),
        length=np.array([3]),
        total=np.array([4]),
        is_reversed=np.array([backwards]),
        tie_order=order,
    )


def of(batch: FLMBatch) -> list[list[int]]:
    """The histories of its users."""
    assert batch.users is not None
    return batch.users.history.tolist()


def tied(*groups: int) -> Interactions:
    """Those of user 4, who met 4, 5, 6, 7, in groups of so many a second."""
    time = DATASET.interactions.time.copy()
    own = SEQS.events[SEQS.offsets[4] : SEQS.offsets[5]]
    time[own] = np.arange(len(groups)).repeat(groups)
    return replace(DATASET.interactions, time=time)


@pytest.mark.parametrize("backwards", [False, True])
def test_events_of_one_second_come_in_a_new_order_and_others_stay_where_they_are(backwards):
    interactions = tied(1, 2, 1) if not backwards else tied(2, 1, 1)
    seen = set()
    for seed in range(20):
        order = np.random.default_rng(seed).random((1, 3))
        drawn = window(1, backwards=backwards, order=order)
        dataset = replace(DATASET, interactions=interactions)
        batch = collator(dataset).batch(drawn, SEQS, rng_key=(0, 2, 0))
        assert batch.users is not None
        assert batch.items is not None
        seen.add(tuple(batch.users.history[0].tolist()))
        # Each is still its own edge, at its own step.
        assert batch.edges.step.tolist() == [0, 1, 2]
        assert batch.items.row[batch.edges.item].tolist() == batch.users.history[0].tolist()
    assert seen == ({(5, 6, 7), (6, 5, 7)} if not backwards else {(6, 5, 4), (6, 4, 5)})


def test_ranks_see_the_ties_of_a_step_in_one_order():
    same = replace(DATASET.interactions, time=np.zeros_like(DATASET.interactions.time))
    dataset = replace(DATASET, interactions=same)
    draw = UserSampler(SEQS, users=6, window=3, reverse=0.5, shuffle_ties=True, seed=1)
    whole = collator(dataset).step(draw, 3)
    halves = [collator(dataset, rank=rank, world_size=2).step(draw, 3) for rank in (0, 1)]
    history = of(halves[0]) + of(halves[1])
    assert history == of(whole)
    plain = UserSampler(SEQS, users=6, window=3, reverse=0.5, seed=1)
    assert of(collator(dataset).step(plain, 3)) != history


def test_an_item_is_foretold_from_any_of_the_places_ahead_up_to_its_own():
    every = {ahead: set() for ahead in (1, 2, 9)}
    for ahead, seen in every.items():
        draw = UserSampler(SEQS, users=6, window=3, reverse=0.5, ahead=ahead, seed=1)
        for step in range(60):
            batch = collator(DATASET).step(draw, step)
            assert batch.users is not None
            assert batch.items is not None
            own = batch.users.history[batch.edges.user] == batch.edges.item[:, None]
            real = batch.edges.weight > 0
            place = own.int().argmax(1)
            seen |= set(zip(place[real].tolist(), batch.edges.step[real].tolist(), strict=True))
    assert every[1] == {(0, 0), (1, 1), (2, 2)}
    assert every[2] == {(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)}
    assert every[9] == {(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)}


def test_early_places_ahead_are_drawn_more_often():
    draw = UserSampler(SEQS, users=6, window=3, reverse=0.0, ahead=3, seed=1)
    steps = torch.cat([collator(DATASET).step(draw, step).edges.step[2::3] for step in range(300)])
    full = torch.cat(
        [collator(DATASET).step(draw, step).edges.weight[2::3] > 0 for step in range(300)]
    )
    share = torch.bincount(steps[full], minlength=3) / full.sum()
    # log 2, log 3/2 and log 4/3 over their sum, log 4.
    assert share.tolist() == pytest.approx([0.5, 0.292, 0.208], abs=0.06)


def test_a_hidden_user_has_the_features_but_not_the_id():
    draw = UserSampler(SEQS, users=6, window=3, reverse=0.0, hide_users=0.5, seed=1)
    plain = UserSampler(SEQS, users=6, window=3, reverse=0.0, seed=1)
    num_hidden = 0
    for step in range(20):
        drawn, usual = draw(step), collator(DATASET).step(plain, step).users
        users = collator(DATASET).step(draw, step).users
        assert usual is not None
        assert users is not None
        assert drawn.is_hidden is not None
        assert users.row.tolist() == usual.row.tolist()
        ids = torch.where(torch.from_numpy(drawn.is_hidden), 0, usual.features["user_id"].values())
        assert users.features["user_id"].values().tolist() == ids.tolist()
        for key in set(usual.features.keys()) - {"user_id"}:
            for own, as_usual in (
                (users.features[key].values(), usual.features[key].values()),
                (users.features[key].lengths(), usual.features[key].lengths()),
            ):
                assert own.tolist() == as_usual.tolist()
        num_hidden += int(drawn.is_hidden.sum())
    assert 40 < num_hidden < 80


def test_a_hidden_user_of_one_domain_has_no_id_in_another(tmp_path):
    users = movies_and_music(tmp_path).users
    assert users is not None
    assert users.num_ids == 2
    rows = np.arange(1, len(users.ids))
    usual = user_features(users, rows, None)
    hidden = user_features(users, rows, np.arange(len(rows)) % 2 == 0)
    for place, key in enumerate(users.columns):
        assert hidden[key].lengths().tolist() == usual[key].lengths().tolist()
        ids = usual[key].values().clone()
        if place < users.num_ids:
            owner = np.arange(len(rows)).repeat(usual[key].lengths().numpy())
            ids[torch.from_numpy(owner % 2 == 0)] = 0
        assert hidden[key].values().tolist() == ids.tolist()
