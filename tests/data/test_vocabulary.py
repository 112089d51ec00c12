"""Vocabularies and buckets: row 0 is unknown, rows are in order."""

import numpy as np
import pyarrow as pa

from flm_torchrec.data.vocabulary import Buckets, Vocabulary


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
