import math
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from flm_torchrec.data.dataset import Column
from flm_torchrec.data.id_bags import IdBags
from flm_torchrec.data.moments import MomentFinder, Moments
from flm_torchrec.data.recency import EARLIER_SESSION, recency_weights
from flm_torchrec.data.sampling import Windows, sequences
from flm_torchrec.views.linear import history_weight

DATASET = tiny.dataset()  # item 8 is met in the test only: its id is unknown


def near(distance: int) -> float:
    return 0.7 * math.exp(-distance / 15) + 0.3 * math.exp(-distance / 3) + 0.03


def moments(*met: list[int]) -> Moments:
    """Windows of these items, all of one time."""
    rows = np.array(met)
    none = np.zeros(0, dtype=np.int64)
    return Moments(
        user=np.arange(1, 1 + len(rows)),
        met=rows,
        event=np.zeros_like(rows),
        num_events=(rows > 0).sum(1),
        known_user=none,
        known_item=none,
    )


def bags(columns: dict[str, Column] | None = None, time: list[int] | None = None) -> IdBags:
    assert DATASET.items is not None
    items = DATASET.items
    if columns is not None:
        items = replace(items, columns=columns | items.columns, num_ids=len(columns))
    return IdBags(items, np.zeros(1, dtype=np.int64) if time is None else np.array(time))


def test_the_events_behind_a_moment_are_one_bag_weighted_by_recency():
    user, step = np.array([1, 0, 0, 0]), np.array([2, 0, 3, 1])
    kjt = bags().of_moments(moments([3, 1, 5], [2, 4, 6]), user, step)
    assert kjt.keys() == ["item_id"]
    assert kjt.lengths().tolist() == [2, 0, 3, 1]  # state 0 has seen nothing
    assert kjt.values().tolist() == [2, 4, 3, 1, 5, 3]
    expected = [near(1), near(0), near(2), near(1), near(0), near(0)]
    assert kjt.weights().tolist() == pytest.approx(expected)


def test_neither_an_event_itself_nor_a_later_one_is_in_its_bag():
    first, other = moments([3, 1, 5, 7]), moments([3, 1, 6, 2])
    same = np.array([0, 0, 0]), np.array([0, 1, 2])
    before, after = (bags().of_moments(each, *same) for each in (first, other))
    assert before.values().tolist() == after.values().tolist() == [3, 3, 1]
    assert before.weights().tolist() == after.weights().tolist()


def test_events_of_earlier_sessions_count_half():
    made, windows = bags(time=[0, 60, 9999]), moments([3, 1, 5])
    windows = replace(windows, event=np.array([[0, 1, 2]]))
    weights = made.of_moments(windows, np.array([0]), np.array([3])).weights().tolist()
    half = EARLIER_SESSION
    assert weights == pytest.approx([half * near(2), half * near(1), near(0)])


def test_what_training_never_met_has_no_id_but_keeps_its_place():
    kjt = bags().of_moments(moments([3, 8, 5]), np.array([0]), np.array([3]))
    assert kjt.values().tolist() == [3, 5]
    assert kjt.weights().tolist() == pytest.approx([near(2), near(0)])
    ids = bags().of_items(np.array([8, 2, 0, 1]))
    assert ids.lengths().tolist() == [0, 1, 0, 1]
    assert ids.values().tolist() == [2, 1]


def test_an_id_of_two_columns_has_a_bag_in_each():
    first = tiny.single([0, 1, 2, 1, 2, 1, 2, 1, 2], 3)
    second = Column(
        values=np.array([0, 1, 2, 3]), offsets=np.array([0, 1, 2, *[3] * 6, 4]), num_embeddings=4
    )  # of items 1, 2 and 8 alone
    made = bags({"first": first, "second": second})
    kjt = made.of_moments(moments([2, 3, 1]), np.array([0, 0]), np.array([3, 1]))
    assert kjt["first"].values().tolist() == [2, 1, 1, 2]
    assert kjt["first"].lengths().tolist() == [3, 1]
    assert kjt["second"].values().tolist() == [2, 1, 2]
    assert kjt["second"].lengths().tolist() == [2, 1]
    assert kjt["second"].weights().tolist() == pytest.approx([near(2), near(0), near(0)])
    assert made.of_items(np.array([8, 3]))["second"].lengths().tolist() == [1, 0]


def test_a_window_read_backwards_is_weighed_in_its_own_order():
    seqs = sequences(DATASET.interactions, before_part=1)
    one = np.array([1])
    windows = Windows(
        user=one, first=0 * one, length=3 * one, total=5 * one, is_reversed=np.array([True])
    )
    found = MomentFinder(DATASET.interactions, window=3).moments(windows, seqs)
    made = bags(time=DATASET.interactions.time.tolist())
    kjt = made.of_moments(found, np.array([0]), np.array([2]))
    assert kjt.values().tolist() == [5, 4]
    assert kjt.weights().tolist() == pytest.approx([near(1), near(0)])


def test_a_batch_that_is_made_is_weighed_as_one_that_is_read():
    rng = np.random.default_rng(0)
    session, step = rng.integers(0, 2, (50, 9)).cumsum(1), rng.integers(0, 10, 50)
    read = history_weight(torch.from_numpy(step), torch.from_numpy(session))
    made = recency_weights(step, session)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, read.numpy(), rtol=1e-6)
