"""The linear path that reads all other events, whenever they were."""

import math

import numpy as np
import pytest
import tiny
import tiny_model
import torch

from flm_torchrec.data.next_items import next_items
from flm_torchrec.views.linear_fit import item_weights
from flm_torchrec.views.set_linear import SetLinearPath

NUM_ITEMS = 6
ALL = range(NUM_ITEMS)


def path(*weights: torch.Tensor) -> SetLinearPath:
    made = SetLinearPath()
    made.weight = torch.stack(weights)
    return made


def log(score: float) -> float:
    return math.log(max(score, 0) + 1e-3)


def test_an_edge_is_scored_by_all_other_events():
    weight = torch.rand(NUM_ITEMS, NUM_ITEMS) - 0.3
    made, batch = path(weight, weight).eval(), tiny_model.batch([[1, 2, 3]], item_row=ALL)
    found = made(batch.users, batch.items, batch.edges)
    for edge, others in enumerate(([2, 3], [1, 3], [1, 2])):
        scores = weight[others].sum(0).tolist()
        expected = [log(score) for score in (scores[edge + 1], *scores)]
        assert found[edge].tolist() == pytest.approx(expected, abs=1e-5)


def test_an_edge_outside_the_window_and_the_catalogue_read_all_events():
    weight = torch.rand(NUM_ITEMS, NUM_ITEMS) - 0.3
    made, batch = path(weight, weight).eval(), tiny_model.batch([[1, 2, 0]], item_row=ALL)
    scores = [log(score) for score in (weight[1] + weight[2]).tolist()]
    outside = batch.edges.step == batch.users.num_events[batch.edges.user]
    found = made(batch.users, batch.items, batch.edges)[outside]
    assert len(found) == 1
    assert found[0, 1:].tolist() == pytest.approx(scores, abs=1e-5)
    assert made.catalogue(batch.users)[0].tolist() == pytest.approx(scores, abs=1e-5)


def test_sampled_negatives_score_as_in_the_whole_catalogue():
    made = path(*torch.rand(2, NUM_ITEMS, NUM_ITEMS))
    every = tiny_model.batch([[1, 2, 3], [5, 1, 0]], item_row=ALL)
    some = tiny_model.batch([[1, 2, 3], [5, 1, 0]], item_row=[*ALL, 4, 2, 4], log_q=[0.0] * 3)
    whole = made(every.users, every.items, every.edges)
    drawn = made(some.users, some.items, some.edges)
    torch.testing.assert_close(drawn, whole[:, [0, 5, 3, 5]])


def test_weights_are_the_regression_of_each_item_on_the_others():
    moments = next_items(tiny.dataset())
    fit = item_weights(moments, num_items=9, l2=0.7, folds=2, block=2)
    for weight, users in zip(fit, (range(1, 7), [1, 3, 5], [2, 4, 6]), strict=True):
        met = np.zeros((7, 9))
        for user in users:
            own = slice(moments.offsets[user], moments.offsets[user + 1])
            met[user, moments.event_item[own]] = 1
        for item in range(9):
            others = np.arange(9) != item
            gram = met[:, others].T @ met[:, others] + 0.7 * np.eye(8)
            expected = np.linalg.solve(gram, met[:, others].T @ met[:, item])
            np.testing.assert_allclose(weight[others, item].numpy(), expected, atol=1e-5)
            assert weight[item, item] == 0
