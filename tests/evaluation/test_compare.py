"""The interval of a ratio, by cases whose answer is known."""

import numpy as np
import pytest

from flm_torchrec.evaluation.compare import ratio_of_means


def test_a_constant_multiple_has_no_spread():
    theirs = np.random.default_rng(0).random(200)
    ratio = ratio_of_means(1.5 * theirs, theirs, resamples=100)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.5, 1.5, 1.5))


def test_the_interval_is_that_of_the_normal_approximation():
    rng = np.random.default_rng(1)
    theirs = 1 + rng.random(2000)
    ours = 1.2 * theirs + 0.5 * rng.standard_normal(2000)
    ratio = ratio_of_means(ours, theirs, resamples=4000)
    # Of a ratio of means: the standard error of the mean of ours - ratio * theirs, over theirs.
    error = (ours - ratio.value * theirs).std() / 2000**0.5 / theirs.mean()
    assert ratio.low == pytest.approx(ratio.value - 1.96 * error, abs=error / 5)
    assert ratio.high == pytest.approx(ratio.value + 1.96 * error, abs=error / 5)


def test_pairing_takes_out_what_is_hard_for_both():
    rng = np.random.default_rng(2)
    difficulty = 10 * rng.random(500)
    paired = ratio_of_means(difficulty + 1, difficulty, resamples=500)
    unpaired = ratio_of_means(difficulty + 1, rng.permutation(difficulty), resamples=500)
    assert paired.high - paired.low < (unpaired.high - unpaired.low) / 2


def test_another_level_is_another_interval():
    rng = np.random.default_rng(3)
    ours, theirs = rng.random(100), rng.random(100)
    narrow = ratio_of_means(ours, theirs, resamples=500, level=0.5)
    wide = ratio_of_means(ours, theirs, resamples=500)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_the_same_seed_gives_the_same_interval():
    rng = np.random.default_rng(4)
    ours, theirs = rng.random(50), rng.random(50)
    first = ratio_of_means(ours, theirs, resamples=300, seed=5)
    assert ratio_of_means(ours, theirs, resamples=300, seed=5) == first
    assert ratio_of_means(ours, theirs, resamples=300, seed=6) != first


def test_a_peer_that_finds_next_to_nothing_leaves_the_upper_end_open():
    theirs = np.zeros(10)
    theirs[0] = 1.0
    ratio = ratio_of_means(np.ones(10), theirs, resamples=1000)
    assert ratio.value == 10
    assert np.isfinite(ratio.low)
    assert ratio.high == np.inf


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ([1.0], [1.0, 2.0], r"needs the same users twice, got \(1,\) and \(2,\)"),
        ([], [], r"needs the same users twice, got \(0,\) and \(0,\)"),
        ([1.0, 2.0], [0.0, 0.0], r"the mean below is 0.0; allowed: above 0"),
    ],
)
def test_what_has_no_ratio_is_told(ours: list[float], theirs: list[float], message: str):
    with pytest.raises(ValueError, match=message):
        ratio_of_means(np.array(ours), np.array(theirs))
