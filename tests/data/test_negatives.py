import numpy as np
import pytest

from flm_torchrec.data.negatives import AllItems, PopularItems

COUNTS = np.array([7, 9, 4, 0, 1])  # row 0, the unknown item, is never drawn


def test_all_items_are_every_row_without_correction():
    rows, log_q = AllItems(num_items=4).draw(np.random.default_rng(0))
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
    rows, _ = negatives.draw(np.random.default_rng(0))
    share = np.bincount(rows, minlength=5) / len(rows)
    assert share == pytest.approx(negatives.q, abs=0.01)
    assert share[0] == 0


def test_log_q_is_the_log_of_the_expected_number_of_draws():
    negatives = PopularItems(COUNTS, count=6, power=0.5)
    rows, log_q = negatives.draw(np.random.default_rng(0))
    assert rows.shape == log_q.shape == (6,)
    assert np.exp(log_q) == pytest.approx(6 * negatives.q[rows])


def test_draws_are_a_function_of_the_generator():
    negatives = PopularItems(COUNTS, count=50, power=0.5)
    once, again, other = (negatives.draw(np.random.default_rng(s))[0].tolist() for s in (1, 1, 2))
    assert once == again != other
