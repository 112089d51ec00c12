import math

import numpy as np
import pytest
import torch

from flm_torchrec.data.negatives import PopularItems
from flm_torchrec.tasks.contrast import group_softmax_loss, info_nce, softmax_loss

NOTHING = np.zeros(0, dtype=np.int64)  # popular negatives don't ask what was met


def test_softmax_by_hand_with_a_masked_negative():
    loss = softmax_loss(
        torch.tensor([1.0, 0.0]),
        torch.tensor([[2.0, 3.0], [9.0, 0.0]]),
        torch.tensor([[False, False], [True, False]]),
    )
    first = math.log(math.exp(1) + math.exp(2) + math.exp(3)) - 1
    assert loss.tolist() == pytest.approx([first, math.log(2)])


def test_with_every_negative_masked_the_loss_is_0_and_has_a_gradient():
    positive = torch.tensor([3.0], requires_grad=True)
    negatives = torch.ones(1, 2, requires_grad=True)
    softmax_loss(positive, negatives, torch.ones(1, 2, dtype=torch.bool)).sum().backward()
    assert positive.grad.tolist() == [0.0]
    assert negatives.grad.tolist() == [[0.0, 0.0]]


def test_sampled_softmax_with_log_q_is_the_full_softmax_in_expectation():
    items, draws, positive = 20, 400, 4
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(items + 1, generator=generator).requires_grad_()  # row 0 is never drawn
    full = -scores[1:].log_softmax(0)[positive - 1]
    (wanted,) = torch.autograd.grad(full, scores)
    popularity = np.arange(items + 1) ** 2
    negatives = PopularItems(popularity, count=500, power=0.5)
    rng = np.random.default_rng(0)
    rows, log_q = map(
        np.stack, zip(*(negatives.draw(rng, NOTHING) for _ in range(draws)), strict=True)
    )
    candidates = torch.from_numpy(rows)
    loss = softmax_loss(
        scores[positive].expand(draws),
        scores[candidates] - torch.from_numpy(log_q),
        candidates == positive,
    ).mean()
    (gradient,) = torch.autograd.grad(loss, scores)
    assert loss.item() == pytest.approx(full.item(), abs=0.01)
    torch.testing.assert_close(gradient, wanted, atol=0.005, rtol=0)


def test_without_log_q_popular_negatives_would_count_too_much():
    scores = torch.zeros(3)
    negatives = PopularItems(np.array([0, 99, 1]), count=10_000, power=1.0)
    rows, log_q = negatives.draw(np.random.default_rng(0), NOTHING)
    is_masked = torch.zeros(1, 10_000, dtype=torch.bool)
    drawn = scores[torch.from_numpy(rows)][None]
    corrected = softmax_loss(torch.zeros(1), drawn - torch.from_numpy(log_q), is_masked)
    assert corrected.item() == pytest.approx(math.log(3), abs=0.05)
    assert softmax_loss(torch.zeros(1), drawn, is_masked).item() == pytest.approx(math.log(10_001))


def test_info_nce_by_hand():
    left = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    right = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    # Cosines: row 0 is 1 with both, row 1 is 0 with both.
    columns = math.log(math.exp(2) + 1) - torch.tensor([2.0, 0.0])
    expected = (math.log(2) + columns.mean().item()) / 2
    assert info_nce(left, right, torch.tensor(2.0)).item() == pytest.approx(expected)


def test_info_nce_of_equal_orthogonal_rows_falls_with_the_scale():
    rows = torch.eye(2)
    for scale in (1.0, 10.0):
        expected = math.log(1 + math.exp(-scale))
        assert info_nce(rows, rows, torch.tensor(scale)).item() == pytest.approx(expected, rel=1e-3)


def test_info_nce_is_symmetric_and_blind_to_length():
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 5, 3, generator=generator)
    scale = torch.tensor(3.0)
    torch.testing.assert_close(info_nce(left, right, scale), info_nce(7 * right, left, scale))


def test_info_nce_of_no_rows_is_0_with_a_gradient():
    left = torch.zeros(0, 3, requires_grad=True)
    scale = torch.tensor(2.0, requires_grad=True)
    loss = info_nce(left, torch.zeros(0, 3), scale)
    loss.backward()
    assert loss.item() == scale.grad.item() == 0.0
    assert left.grad.shape == (0, 3)


def test_info_nce_of_the_rows_that_are_there_is_that_of_them_alone():
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 5, 3, generator=generator).requires_grad_().unbind()
    is_there, scale = torch.tensor([True, False, True, True, False]), torch.tensor(3.0)
    some = info_nce(left, right, scale, is_there)
    torch.testing.assert_close(some, info_nce(left[is_there], right[is_there], scale))
    (gradient,) = torch.autograd.grad(some, left)
    assert (gradient.abs().sum(1) > 0).tolist() == is_there.tolist()
    assert info_nce(left, right, scale, torch.zeros(5, dtype=torch.bool)) == 0


def log_sum(*scores: float) -> float:
    return math.log(sum(math.exp(score) for score in scores))


SCORE = [1.0, 2.0, 0.5, 3.0, 4.0, -1.0]
IS_NEGATIVE = torch.tensor([False, True, True, False, False, True])
GROUP = torch.tensor([0, 0, 0, 0, 1, 2])


def test_a_softmax_within_groups_by_hand():
    loss = group_softmax_loss(torch.tensor(SCORE), IS_NEGATIVE, GROUP, 4)
    # Rows 0 and 3 compete with rows 1 and 2, not with each other; row 4 has no negative.
    assert loss[[0, 3]].tolist() == pytest.approx([log_sum(1, 2, 0.5) - 1, log_sum(3, 2, 0.5) - 3])
    assert loss[4] == 0


def test_large_scores_and_groups_without_negatives_keep_the_gradient_finite():
    score = (1e4 * torch.tensor(SCORE)).requires_grad_()
    loss = group_softmax_loss(score, IS_NEGATIVE, GROUP, 4)
    assert loss[[0, 3, 4]].tolist() == [1e4, 0, 0]
    loss[[0, 3, 4]].sum().backward()
    assert score.grad.tolist() == [-1, 1, 0, 0, 0, 0]


def test_the_softmax_within_one_group_is_the_plain_one():
    generator = torch.Generator().manual_seed(0)
    score = torch.randn(6, generator=generator).requires_grad_()
    is_negative = torch.arange(6) > 1
    one_group = torch.zeros(6, dtype=torch.int64)
    grouped = group_softmax_loss(score, is_negative, one_group, 1)[:2].sum()
    is_masked = torch.zeros(2, 4, dtype=torch.bool)
    plain = softmax_loss(score[:2], score[2:].expand(2, 4), is_masked).sum()
    torch.testing.assert_close(grouped, plain)
    (left,), (right,) = (torch.autograd.grad(loss, score) for loss in (grouped, plain))
    torch.testing.assert_close(left, right)


def test_a_batch_without_rows_has_a_loss_of_0():
    none = torch.zeros(0)
    assert group_softmax_loss(none, none.bool(), none.long(), 1).shape == (0,)
