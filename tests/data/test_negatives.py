import numpy as np
import pytest
import torch

from flm_torchrec.data.negatives import AllItems, InBatchItems, MixedItems, NoItems, PopularItems
from flm_torchrec.tasks.contrast import softmax_loss

MET = np.array([1, 1, 2, 4])
COUNTS = np.array([7, 9, 4, 0, 1])  # row 0, the unknown item, is never drawn


def test_all_items_are_every_row_without_correction():
    rows, log_q = AllItems(num_items=4).draw(np.random.default_rng(0), MET)
    assert rows.tolist() == [0, 1, 2, 3]
    assert log_q.tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("power", "weights"),
    [(1.0, [0, 9, 4, 1, 1]), (0.5, [0, 3, 2, 1, 1]), (0.0, [0, 1, 1, 1, 1])],
)
def test_chances_are_popularity_to_a_power_and_add_up_to_1(power, weights):
    q = PopularItems(COUNTS, count=5, power=power).q
    assert q == pytest.approx(np.array(weights) / sum(weights))
    assert q.sum() == pytest.approx(1.0)


def test_items_are_drawn_as_often_as_q_says():
    negatives = PopularItems(COUNTS, count=20_000, power=0.5)
    rows, _ = negatives.draw(np.random.default_rng(0), MET)
    share = np.bincount(rows, minlength=5) / len(rows)
    assert share == pytest.approx(negatives.q, abs=0.01)
    assert share[0] == 0


def test_log_q_is_the_log_of_the_expected_number_of_draws():
    negatives = PopularItems(COUNTS, count=6, power=0.5)
    rows, log_q = negatives.draw(np.random.default_rng(0), MET)
    assert rows.shape == log_q.shape == (6,)
    assert np.exp(log_q) == pytest.approx(6 * negatives.q[rows])


def test_draws_are_a_function_of_the_generator():
    negatives = PopularItems(COUNTS, count=50, power=0.5)
    draws = [negatives.draw(np.random.default_rng(seed), MET)[0].tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_without_negatives_nothing_is_drawn():
    rows, log_q = NoItems().draw(np.random.default_rng(0), MET)
    assert rows.shape == log_q.shape == (0,)


def test_in_batch_negatives_are_what_the_batch_met_with_the_training_share_as_q():
    negatives = InBatchItems(COUNTS, count=2000)
    rows, log_q = negatives.draw(np.random.default_rng(0), MET)
    assert np.bincount(rows, minlength=5) / 2000 == pytest.approx([0, 0.5, 0.25, 0, 0.25], abs=0.05)
    assert np.exp(log_q) == pytest.approx(2000 * COUNTS[rows] / 14)


def test_mixed_negatives_have_the_q_of_both_ways_together():
    negatives = MixedItems(PopularItems(COUNTS, count=3, power=0.0), InBatchItems(COUNTS, count=2))
    rows, log_q = negatives.draw(np.random.default_rng(0), MET)
    assert rows.shape == (5,)
    assert set(rows[3:]) <= set(MET)
    assert np.exp(log_q) == pytest.approx(3 / 4 + 2 * np.maximum(COUNTS, 1)[rows] / 14)


def met_of_a_batch(rng):
    """Items met in a batch, by their share of the training interactions."""
    return rng.choice(TWENTY, size=64, p=SHARE)


TWENTY = np.arange(1, 21)
MANY = np.concatenate([[0], np.geomspace(1000, 5, 20).astype(int)])
SHARE = MANY[1:] / MANY.sum()


@pytest.mark.parametrize(
    "negatives",
    [
        PopularItems(MANY, count=2000, power=0.0),
        PopularItems(MANY, count=2000, power=1.0),
        InBatchItems(MANY, count=2000),
        MixedItems(PopularItems(MANY, count=900, power=0.5), InBatchItems(MANY, count=1100)),
    ],
    ids=lambda negatives: type(negatives).__name__,
)
def test_a_sampled_softmax_with_log_q_is_the_full_softmax_of_20_items(negatives):
    rng = np.random.default_rng(1)
    score = torch.from_numpy(rng.normal(size=21))
    positive = 7
    full = -(score[positive] - torch.logsumexp(score[TWENTY], 0))
    losses = []
    for _ in range(60):
        rows, log_q = negatives.draw(rng, met_of_a_batch(rng))
        is_masked = torch.from_numpy(rows == positive)[None]
        corrected = (score[rows] - torch.from_numpy(log_q))[None]
        losses.append(softmax_loss(score[positive][None], corrected, is_masked).item())
    uncorrected = softmax_loss(
        score[positive][None], score[rows][None], torch.from_numpy(rows == positive)[None]
    )
    assert np.mean(losses) == pytest.approx(full.item(), abs=0.05)
    assert abs(uncorrected.item() - full.item()) > 1
