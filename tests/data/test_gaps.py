from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from flm_torchrec.data.collate import Collator
from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.negatives import AllItems, NoItems
from flm_torchrec.data.sampling import Windows, histories, sequences, windows_before
from flm_torchrec.data.told import scaled_gaps

BASE = tiny.dataset()
SEQS = sequences(BASE.interactions, before_part=1)
EVENTS = histories(BASE.interactions, before_part=1)
HOUR, DAY = 3600, 86_400


def with_times(first: list[int]) -> Dataset:
    """The first rows, those of user 1, at the times given; the others a day apart."""
    time = np.arange(len(BASE.interactions.user), dtype=np.int64) * DAY
    time[: len(first)] = first
    return replace(BASE, interactions=replace(BASE.interactions, time=time))


DATASET = with_times([0, 60, 60, HOUR + 60, 10 * DAY])


def collator(dataset: Dataset = DATASET, *, window: int = 4) -> Collator:
    every = AllItems(num_items=9)
    return Collator(dataset, EVENTS, window=window, negatives=every, text=None)


def windows(user, first, length, *, backwards=False) -> Windows:
    user = np.array(user)
    return Windows(
        user=user,
        first=np.array(first),
        length=np.array(length),
        total=SEQS.offsets[user + 1] - SEQS.offsets[user],
        is_reversed=np.full(len(user), backwards),
    )


def scaled(*seconds: float) -> torch.Tensor:
    return torch.log1p(torch.tensor(seconds, dtype=torch.float32)) / 20


def test_a_gap_is_the_time_since_the_event_before_it_in_the_window():
    # User 6 has two events: the rest of its window is padding.
    users = collator().batch(windows([1, 6], [0, 0], [4, 2]), SEQS, rng_key=(0,)).users
    torch.testing.assert_close(users.gap[0], scaled(0, 60, 0, HOUR))
    torch.testing.assert_close(users.gap[1], scaled(0, DAY, 0, 0))
    assert users.gap.dtype == torch.float32


def test_a_window_in_the_middle_begins_without_a_gap():
    users = collator(window=3).batch(windows([1], [2], [3]), SEQS, rng_key=(0,)).users
    torch.testing.assert_close(users.gap[0], scaled(0, HOUR, 10 * DAY - HOUR - 60))


def test_reversed_windows_have_the_gaps_as_seen_in_their_direction():
    found = collator().batch(windows([1], [0], [4], backwards=True), SEQS, rng_key=(0,))
    assert found.users.history.tolist() == [[5, 4, 3, 2]]
    torch.testing.assert_close(found.users.gap[0], scaled(0, 10 * DAY - HOUR - 60, HOUR, 0))


def test_gaps_of_a_log_are_those_of_each_moment():
    maker = Collator(DATASET, EVENTS, window=2, negatives=NoItems(), text=None)
    users = maker.batch(np.array([0, 2, 4]), EVENTS, rng_key=(0,)).users
    expected = torch.stack([scaled(0, 0), scaled(0, 60), scaled(0, HOUR)])
    torch.testing.assert_close(users.gap, expected)


def test_serving_sees_the_gaps_of_the_latest_events():
    rows = collator(window=3).user_rows(windows_before(np.array([1]), np.array([5]), 3), EVENTS)
    torch.testing.assert_close(rows.gap[0], scaled(0, HOUR, 10 * DAY - HOUR - 60))


def test_without_times_there_are_no_gaps():
    users = collator(with_times([0] * 5)).batch(windows([1], [0], [4]), SEQS, rng_key=(0,)).users
    assert users.gap.tolist() == [[0] * 4]


def test_a_window_without_events_has_no_gap():
    none = np.zeros(0, dtype=np.int64)
    assert scaled_gaps(none, np.zeros(3, dtype=np.int64)).tolist() == []
    gaps = scaled_gaps(np.array([5, 5, 8]), np.array([0, 1, 0, 2]))
    assert gaps.tolist() == pytest.approx([0, 0, np.log(4) / 20])
