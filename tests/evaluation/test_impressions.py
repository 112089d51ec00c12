import math

import numpy as np
import pytest

from flm_torchrec.evaluation.impressions import impression_metrics


def metrics(impression: list[int], wanted: list[int], score: list[float]) -> dict[str, float]:
    return impression_metrics(np.array(impression), np.array(wanted) > 0, np.array(score))


def test_one_impression_by_hand():
    # In order of score: not, wanted, not, wanted.
    found = metrics([7] * 4, [0, 1, 0, 1], [4.0, 3.0, 2.0, 1.0])
    dcg = 1 / math.log2(3) + 1 / math.log2(5)
    ideal = 1 + 1 / math.log2(3)
    assert found == {
        "group_auc": 0.25,  # of the 4 pairs, one is in order
        "mrr": 0.5,
        "ndcg@5": pytest.approx(dcg / ideal),
        "ndcg@10": pytest.approx(dcg / ideal),
    }


def test_impressions_are_averaged_wherever_their_rows_stand():
    found = metrics([2, 1, 2, 1], [1, 1, 0, 0], [5.0, 1.0, 4.0, 2.0])
    assert found["group_auc"] == 0.5
    assert found["mrr"] == (1 + 1 / 2) / 2


def test_scores_of_different_impressions_are_not_compared():
    found = metrics([1, 1, 2, 2], [1, 0, 1, 0], [10.0, 9.0, 2.0, 1.0])
    assert set(found.values()) == {1.0}


def test_impressions_without_choice_do_not_count():
    with_choice = metrics([1, 1, 2, 2, 3, 3], [1, 0, 1, 1, 0, 0], [2.0, 1.0] * 3)
    assert set(with_choice.values()) == {1.0}
    assert all(math.isnan(value) for value in metrics([2, 2], [1, 1], [1.0, 2.0]).values())


def test_a_constant_score_gains_nothing_from_the_order_of_the_rows():
    found = metrics([1] * 4, [1, 0, 0, 0], [0.0] * 4)
    assert found["group_auc"] == 0.5
    assert found["mrr"] == 0.25


def test_hits_below_the_cut_off_do_not_count():
    score = [float(-place) for place in range(8)]
    found = metrics([1] * 8, [0] * 6 + [1, 0], score)
    assert found["ndcg@5"] == 0
    assert found["ndcg@10"] == pytest.approx(1 / math.log2(8))


def test_the_auc_is_that_of_the_pairs_one_by_one():
    rng = np.random.default_rng(0)
    impression, wanted = rng.integers(0, 5, 60), rng.random(60) < 0.4
    score = rng.integers(0, 4, 60).astype(float)  # ties
    each = []
    for group in range(5):
        own = impression == group
        above = score[own & wanted][:, None] - score[own & ~wanted]
        each.append(((above > 0) + 0.5 * (above == 0)).mean())
    found = impression_metrics(impression, wanted, score)
    assert found["group_auc"] == pytest.approx(np.mean(each))
