from dataclasses import replace

import numpy as np
import pytest
import tiny

from flm_torchrec.data.sampling import (
    LogSampler,
    UserSampler,
    histories,
    last_windows,
    sequences,
)

DATASET = tiny.dataset()
SEQS = sequences(DATASET.interactions, before_part=1)


def sampler(*, users: int = 3, window: int = 3, reverse: float = 0.0, seed: int = 0) -> UserSampler:
    return UserSampler(SEQS, users=users, window=window, reverse=reverse, seed=seed)


def items(windows, first, length) -> list[list[int]]:
    window, place = windows.positions(first, length)
    item = DATASET.interactions.item[SEQS.events[SEQS.offsets[windows.user][window] + place]]
    return [item[window == row].tolist() for row in range(len(windows.user))]


def test_sequences_hold_the_earlier_parts_in_order():
    assert SEQS.offsets.tolist() == [0, 0, 5, 8, 10, 14, 16, 18]
    own = slice(SEQS.offsets[4], SEQS.offsets[5])
    assert DATASET.interactions.item[SEQS.events[own]].tolist() == [4, 5, 6, 7]
    with_validation = sequences(DATASET.interactions, before_part=2)
    own = slice(with_validation.offsets[4], with_validation.offsets[5])
    assert DATASET.interactions.item[with_validation.events[own]].tolist() == [4, 5, 6, 7, 1]


def test_events_of_the_same_time_keep_their_order():
    interactions = replace(DATASET.interactions, time=np.zeros_like(DATASET.interactions.time))
    assert (np.diff(sequences(interactions, before_part=3).events) == 1).all()


def test_windows_are_a_function_of_seed_and_step_alone():
    used = sampler(reverse=0.5)
    for step in (0, 1, 2, 3):
        used(step)
    fresh = sampler(reverse=0.5)
    for name in ("user", "first", "length", "total", "is_reversed"):
        assert (getattr(used(5), name) == getattr(fresh(5), name)).all()
    orders = {tuple(sampler(seed=seed)(0).user) for seed in range(5)}
    assert len(orders) > 1
    shuffled = UserSampler(SEQS, users=3, window=3, reverse=0.5, shuffle_ties=True, seed=0)
    assert (shuffled(5).user == used(5).user).all()
    assert (shuffled(5).first == used(5).first).all()
    assert shuffled(5).tie_order.tolist() == shuffled(5).tie_order.tolist()
    assert shuffled(5).tie_order.shape == (3, 3)


@pytest.mark.parametrize("users", [1, 2, 4, 8])
def test_an_epoch_has_as_many_windows_of_a_user_as_hold_all_events(users):
    draw = sampler(users=users)  # users 1 and 4 have more than 3 events
    assert draw.steps_per_epoch == 8 // users
    orders = set()
    for epoch in range(4):
        steps = range(epoch * draw.steps_per_epoch, (epoch + 1) * draw.steps_per_epoch)
        visited = np.concatenate([draw(step).user for step in steps])
        assert sorted(visited) == [1, 1, 2, 3, 4, 4, 5, 6]
        orders.add(tuple(visited))
    assert len(orders) > 1


def test_windows_that_do_not_fill_the_last_step_wait():
    draw = sampler(users=5)
    assert draw.steps_per_epoch == 1
    seen = {user for step in range(20) for user in draw(step).user}
    assert seen == {1, 2, 3, 4, 5, 6}


def test_every_stretch_of_a_long_sequence_is_shown():
    draw = sampler(users=6)
    stretches = set()
    for step in range(40):
        windows = draw(step)
        stretches.add(
            tuple(items(windows, windows.first, windows.length)[windows.user.tolist().index(1)])
        )
    assert stretches == {(1, 2, 3), (2, 3, 4), (3, 4, 5)}


def test_reversed_windows_run_backwards_and_what_lies_before_them_is_later_in_time():
    draw = sampler(users=6, window=2, reverse=1.0)
    seen = {}
    for step in range(40):
        windows = draw(step)
        shown = items(windows, windows.first, windows.length)
        later = items(windows, np.zeros_like(windows.first), windows.first)
        for row in np.flatnonzero(windows.user == 1):
            seen[tuple(shown[row])] = later[row]
    assert seen == {(5, 4): [], (4, 3): [5], (3, 2): [5, 4], (2, 1): [5, 4, 3]}


def test_a_share_of_the_windows_is_reversed():
    draw = sampler(users=6, reverse=0.25)
    share = np.mean([draw(step).is_reversed for step in range(300)])
    assert 0.2 < share < 0.3


def test_last_windows_end_with_the_latest_event():
    user = np.array([1, 6, 0])
    windows = last_windows(SEQS, user, 3)
    assert items(windows, windows.first, windows.length) == [[3, 4, 5], [6, 1], []]
    assert windows.length.tolist() == [3, 2, 0]


def test_the_order_of_an_epoch_is_drawn_once(monkeypatch):
    drawn = []
    default_rng = np.random.default_rng

    def counted(seed):
        drawn.append(seed)
        return default_rng(seed)

    monkeypatch.setattr(np.random, "default_rng", counted)
    draw = sampler(users=1)
    for step in range(12):
        draw(step)
    assert [seed for seed in drawn if seed[1] == 0] == [(0, 0, 0), (0, 0, 1)]


def test_steps_asked_for_in_any_order_are_the_same():
    in_order = [sampler(users=2)(step).user.tolist() for step in range(9)]
    draw = sampler(users=2)
    steps = [7, 0, 8, 1, 6, 2, 3, 5, 4]
    assert [draw(step).user.tolist() for step in steps] == [in_order[step] for step in steps]


def test_histories_count_the_events_behind_an_interaction_among_those_that_are_kept():
    train, later = (histories(DATASET.interactions, before_part=part) for part in (1, 2))
    # User 4 has rows 16 to 21, the last two of them held out.
    rows = np.arange(16, 22)
    assert DATASET.interactions.user[rows].tolist() == [4] * 6
    assert train.behind(DATASET.interactions, rows).tolist() == [0, 1, 2, 3, 4, 4]
    assert later.behind(DATASET.interactions, rows).tolist() == [0, 1, 2, 3, 4, 5]


def test_interactions_outside_histories_are_in_sequences_alone():
    interactions = replace(DATASET.interactions, events=np.arange(2, 5), user_offsets=OFFSETS)
    assert histories(interactions, before_part=1).events.tolist() == [2, 3, 4]
    assert sequences(interactions, before_part=1).offsets.tolist() == SEQS.offsets.tolist()


OFFSETS = np.array([0, 0, 3, 3, 3, 3, 3, 3])


@pytest.mark.parametrize("run", [1, 2, 3])
@pytest.mark.parametrize("many", [12, 13, 40, 3000])
def test_an_epoch_of_a_log_shows_each_row_at_most_once_and_nearly_all(run, many, monkeypatch):
    monkeypatch.setattr("flm_torchrec.data.sampling._BLOCK_ROWS", 12)
    monkeypatch.setattr("flm_torchrec.data.sampling._WINDOW_BLOCKS", 3)
    rows = np.arange(many) * 10
    draw = LogSampler(rows, batch=6, run=run, seed=1)
    for epoch in range(2):
        steps = range(epoch * draw.steps_per_epoch, (epoch + 1) * draw.steps_per_epoch)
        shown = np.concatenate([draw(step) for step in steps])
        assert len(np.unique(shown)) == len(shown)
        assert np.isin(shown, rows).all()
        assert many - len(shown) < 6 + run
        assert all((np.diff(draw(step)) > 0).all() for step in steps)
    assert draw(0).tolist() != draw(draw.steps_per_epoch).tolist()


def test_every_row_of_a_log_has_its_turn():
    draw = LogSampler(np.arange(13), batch=6, run=3, seed=1)
    assert len({row for step in range(60) for row in draw(step)}) == 13


def test_runs_of_a_log_stay_together():
    draw = LogSampler(np.arange(1000), batch=12, run=4, seed=0)
    for step in range(5):
        runs = draw(step).reshape(3, 4)
        assert (np.diff(runs, axis=1) == 1).all()


def test_rows_of_a_step_come_from_a_part_of_a_long_log():
    draw = LogSampler(np.arange(10**6), batch=64, seed=0)
    blocks = {row // 4096 for step in range(20) for row in draw(step)}
    assert len(blocks) <= 64


def test_steps_of_a_log_asked_for_in_any_order_are_the_same():
    in_order = [LogSampler(np.arange(40), batch=6, seed=2)(step).tolist() for step in range(20)]
    draw = LogSampler(np.arange(40), batch=6, seed=2)
    for step in (7, 0, 19, 3, 12, 6, 1):
        assert draw(step).tolist() == in_order[step]
