"""Vocabularies, buckets and scales: row 0 is unknown, rows are in order."""

import numpy as np
import pyarrow as pa
import pytest

from flm_torchrec.data.preparing.vocabulary import Buckets, Scale, Vocabulary, hash_rows
from flm_torchrec.data.schema import Hash


def test_values_have_rows_from_one_in_order():
    vocabulary = Vocabulary.fit(pa.array(["b", "a", None, "b", "c"]))
    assert vocabulary.num_embeddings == 4
    assert vocabulary.rows(pa.array(["a", "b", "c"])).tolist() == [1, 2, 3]


def test_unknown_and_missing_values_have_row_zero():
    vocabulary = Vocabulary.fit(pa.array([7, 5]))
    assert vocabulary.rows(pa.array([5, 6, None, 7])).tolist() == [1, 0, 0, 2]


def test_a_vocabulary_does_not_depend_on_the_order_of_what_it_is_fitted_on():
    first, second = (Vocabulary.fit(pa.array(v)) for v in ([3, 1, 2, 1], [1, 2, 3, 3]))
    assert first.values.equals(second.values)


def test_nothing_to_fit_on_leaves_the_unknown_row_alone():
    vocabulary = Vocabulary.fit(pa.array([None], pa.int64()))
    assert vocabulary.num_embeddings == 1
    assert vocabulary.rows(pa.array([1, 2])).tolist() == [0, 0]


def test_buckets_hold_about_equally_many_values():
    values = np.random.default_rng(0).normal(size=1000)
    buckets = Buckets.fit(values, 8)
    rows = buckets.rows(values)
    assert buckets.num_embeddings == 9
    assert np.abs(np.bincount(rows, minlength=9)[1:] - 125).max() <= 1


def test_buckets_keep_the_order_of_values_and_hold_what_lies_outside():
    buckets = Buckets.fit(np.arange(100.0), 4)
    rows = buckets.rows(np.array([-1e9, 0, 23, 26, 51, 99, 1e9, np.nan]))
    assert rows.tolist() == [1, 1, 1, 2, 3, 4, 4, 0]


def test_repeated_values_make_fewer_buckets_and_none_without_a_value():
    values = np.array([1.0] * 90 + [2.0] * 10)
    buckets = Buckets.fit(values, 8)
    assert set(buckets.rows(values).tolist()) == set(range(1, buckets.num_embeddings))


def test_missing_values_alone_make_one_bucket():
    buckets = Buckets.fit(np.array([np.nan, np.nan]), 4)
    assert buckets.rows(np.array([np.nan, 3.0])).tolist() == [0, 1]
    assert buckets.num_embeddings == 2


def test_a_vocabulary_grows_behind_what_it_has():
    grown = Vocabulary.fit(pa.array([7, 5])).grow(pa.array([9, 5, 1, None, 9]))
    assert grown.values.to_pylist() == [5, 7, 1, 9]
    assert grown.rows(pa.array([1, 5, 7, 9])).tolist() == [3, 1, 2, 4]


def test_whole_numbers_become_texts_when_texts_join_them():
    grown = Vocabulary.fit(pa.array([7, 5])).grow(pa.array(["x", "7"], pa.large_string()))
    assert grown.values.to_pylist() == ["5", "7", "x"]
    assert grown.rows(pa.array([5, 7])).tolist() == [1, 2]


def test_a_number_is_scaled_by_its_rank_and_what_lies_between_by_the_distance():
    scale = Scale.fit(np.array([0, 1, 10, 100, 1000.0]))
    values = np.array([0, 1, 10, 55, 100, 1000, 1e9, -1e9, np.nan])
    expected = [-1, -0.5, 0, 0.25, 0.5, 1, 1, -1, 0]
    np.testing.assert_allclose(scale.scaled(values), expected, atol=1e-6)


def test_a_value_that_repeats_has_the_mean_of_its_ranks():
    scale = Scale.fit(np.array([0.0] * 75 + [*range(1, 26)]))
    assert scale.scaled(np.array([0.0]))[0] == pytest.approx(-0.25, abs=0.02)


@pytest.mark.parametrize("values", [[], [np.nan], [3.0], [3.0, 3.0]])
def test_without_two_values_a_number_says_nothing(values):
    assert Scale.fit(np.array(values)).scaled(np.array([3.0, np.nan])).tolist() == [0, 0]


def test_many_numbers_are_scaled_by_256_quantiles():
    values = np.random.default_rng(0).lognormal(size=10_000)
    scale = Scale.fit(values)
    assert len(scale.points) == 256
    ranks = 2 * np.argsort(np.argsort(values)) / 9_999 - 1
    assert np.abs(scale.scaled(values) - ranks).max() < 0.01


@pytest.mark.parametrize("ways", [1, 2])
def test_a_hash_is_the_same_for_a_number_and_its_text_and_at_all_times(ways):
    rule = Hash(rows=1000, ways=ways)
    numbers = hash_rows(pa.array([5, None, 12]), rule)
    texts = hash_rows(pa.array(["5", None, "12"], pa.large_string()), rule)
    assert np.array_equal(numbers, texts)
    assert [rows.tolist() for rows in numbers] == [[[904, 0, 366]], [[630, 0, 552], [904, 0, 366]]][
        ways - 1
    ]


def test_two_ways_tell_more_values_apart_than_one():
    values = pa.array(range(5000))
    one, two = (hash_rows(values, Hash(rows=100, ways=ways)) for ways in (1, 2))
    assert len(set(one[0].tolist())) == 100
    assert len(set(zip(two[0].tolist(), two[1].tolist(), strict=True))) > 3500
    assert min(min(rows) for rows in two) == 1
    assert max(max(rows) for rows in two) == 100
