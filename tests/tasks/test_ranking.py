import math
from dataclasses import replace

import pytest
import tiny
import tiny_model
import torch

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.tasks.ranking import (
    LoggedRanking,
    Ranking,
    edge_scores,
    first_met,
    is_no_negative,
)

# One user, 3 items, one dimension: item i scores i x state; the unknown item would win if it could.
ROW = torch.tensor([[50.0], [1.0], [2.0], [3.0]])
STATES = torch.tensor([[[1.0], [2.0], [7.0]]])
ALL = [0, 1, 2, 3]


def loss(batch, *, mask_seen: bool, row=ROW, states=STATES) -> float:
    task = Ranking(mask_seen=mask_seen)
    return task(tiny_model.views(states=states, row=row), batch).item()


def log_sum(*scores: float) -> float:
    return math.log(sum(math.exp(score) for score in scores))


def test_loss_of_two_events_by_hand_where_nobody_meets_an_item_twice():
    batch = tiny_model.batch([[1, 2]], item_row=ALL)
    first = log_sum(1, 2, 3) - 1  # state 1, item 1 among 1, 2, 3
    second = log_sum(4, 6) - 4  # state 2, item 2 among 2, 3
    assert loss(batch, mask_seen=True) == pytest.approx((first + second) / 2)


def test_where_items_are_met_again_seen_ones_count():
    batch = tiny_model.batch([[1, 2]], item_row=ALL)
    first = log_sum(1, 2, 3) - 1
    second = log_sum(4, 2, 6) - 4
    assert loss(batch, mask_seen=False) == pytest.approx((first + second) / 2)


def test_what_was_met_before_the_window_is_masked():
    batch = tiny_model.batch([[1, 2]], item_row=ALL, known=[(0, 3)])
    assert loss(batch, mask_seen=True) == pytest.approx((log_sum(1, 2) - 1 + 0) / 2)


def test_padding_weighs_nothing():
    batch = tiny_model.batch([[1, 0]], item_row=ALL)
    assert loss(batch, mask_seen=True) == pytest.approx(log_sum(1, 2, 3) - 1)


def test_sampled_negatives_are_corrected_and_the_positive_among_them_is_masked():
    # Rows: unknown, items 1 and 2 of the window, then the draws 3, 1, 3.
    batch = tiny_model.batch(
        [[1, 2]],
        item_row=[0, 1, 2, 3, 1, 3],
        first=[0, 1, 2, 3, 1, 3],
        log_q=[0.5, -0.25, 0.5],
    )
    row = ROW[[0, 1, 2, 3, 1, 3]]
    first = log_sum(1, 2.5, 2.5) - 1
    with_seen, without_seen = log_sum(4, 5.5, 2.25, 5.5) - 4, log_sum(4, 5.5, 5.5) - 4
    assert loss(batch, mask_seen=False, row=row) == pytest.approx((first + with_seen) / 2)
    assert loss(batch, mask_seen=True, row=row) == pytest.approx((first + without_seen) / 2)


def test_first_met_by_hand():
    batch = tiny_model.batch([[1, 2, 1], [3, 0, 0]], item_row=ALL, known=[(1, 2)])
    assert first_met(batch).tolist() == [[3, 0, 1, 3], [3, 3, -1, 0]]


def test_first_met_is_kept_at_an_items_first_row():
    batch = tiny_model.batch(
        [[1, 2]], item_row=[0, 1, 2, 2, 1], first=[0, 1, 2, 2, 1], known=[(0, 2)]
    )
    assert first_met(batch)[:, [0, 1, 2]].tolist() == [[2, 0, -1]]


def test_states_and_items_get_a_gradient():
    states, row = STATES.clone().requires_grad_(), ROW.clone().requires_grad_()
    batch = tiny_model.batch([[1, 2]], item_row=ALL)
    Ranking(mask_seen=True)(tiny_model.views(states=states, row=row), batch).backward()
    assert (states.grad[0, :2].abs() > 0).all()
    assert states.grad[0, 2] == 0  # the state after the last event has nothing to predict here
    assert row.grad[0] == 0
    assert (row.grad[1:].abs() > 0).all()


@pytest.mark.parametrize("negatives", ["all", 20])
def test_the_loss_falls_where_each_item_follows_from_the_last(negatives):
    config = tiny_model.config(
        data={"users": 6, "window": 6, "negatives": negatives}, tasks={"rank": {}}
    )
    parts = tiny_model.parts(config, tiny.dataset(tiny.cycles()))
    losses = tiny_model.train(parts, steps=60)
    assert losses[-5:].mean() < 0.5 * losses[:3].mean()


def shown() -> FLMBatch:
    """User 0 took item 1 and passed over items 2 and 3; user 1 took item 2, shown alone."""
    batch = tiny_model.batch([[1, 2], [3, 1]], item_row=ALL)
    edges = tiny_model.edges(
        torch.tensor([1, 2, 3, 2]),
        user=torch.tensor([0, 0, 0, 1]),
        step=torch.tensor([1, 1, 1, 0]),
        weight=torch.tensor([0.75, 0.0, 0.0, 0.25]),
        is_negative=torch.tensor([False, True, True, False]),
        impression=torch.tensor([0, 0, 0, 1]),
    )
    return replace(batch, edges=edges)


def test_what_was_taken_is_ranked_above_what_was_passed_over():
    views = tiny_model.views(states=STATES.expand(2, -1, -1), row=ROW)
    assert edge_scores(views, shown()).tolist() == [2, 4, 6, 2]
    expected = 0.75 * (log_sum(2, 4, 6) - 2)
    assert LoggedRanking()(views, shown()).item() == pytest.approx(expected)


def test_the_user_who_took_all_that_was_shown_gives_no_gradient():
    states = STATES.repeat(2, 1, 1).requires_grad_()
    LoggedRanking()(tiny_model.views(states=states, row=ROW), shown()).backward()
    assert states.grad[0, 1] != 0
    assert (states.grad[1] == 0).all()


def test_what_training_never_met_is_no_negative():
    batch = tiny_model.batch([[1, 2]], item_row=ALL)
    assert batch.items is not None
    never_met = torch.tensor([True, False, False, True])
    batch = replace(batch, items=replace(batch.items, never_met=never_met))
    assert loss(batch, mask_seen=False) == pytest.approx(
        (log_sum(1, 2) - 1 + log_sum(4, 2) - 4) / 2
    )


def test_items_of_another_domain_are_no_negatives():
    batch = tiny_model.batch([[1], [3]], item_row=[0, 1, 2, 3, 4], log_q=[0.0] * 5)
    assert batch.items is not None
    items = replace(batch.items, domain=torch.tensor([0, 1, 1, 2, 2]))
    is_out = is_no_negative(replace(batch, items=items), mask_seen=False)
    assert is_out.tolist() == [
        [True, True, False, True, True],
        [True, True, True, True, False],
    ]
