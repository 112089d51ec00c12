"""Leave-one-out, by hand and on MovieLens-100K."""

import numpy as np
from pyarrow import parquet

from flm_torchrec.data.dataset import TEST, TRAIN, VALIDATION
from flm_torchrec.data.split import leave_one_out


def test_the_last_is_test_and_the_last_but_one_validation():
    user = np.array([1, 2, 1, 1, 2, 2, 1])
    time = np.array([9, 1, 5, 7, 3, 2, 1])
    part = leave_one_out(user, time)
    assert part.tolist() == [TEST, TRAIN, TRAIN, VALIDATION, TEST, VALIDATION, TRAIN]


def test_ties_keep_the_order_of_the_file():
    assert leave_one_out(np.zeros(4), np.zeros(4)).tolist() == [TRAIN, TRAIN, VALIDATION, TEST]


def test_a_user_with_fewer_than_three_keeps_all_in_training():
    part = leave_one_out(np.array([1, 2, 2, 3, 3, 3]), np.arange(6))
    assert part.tolist() == [TRAIN, TRAIN, TRAIN, TRAIN, VALIDATION, TEST]


def test_415_users_of_movielens_tie_on_their_last_two_times(ml100k):
    table = parquet.read_table(ml100k / "interactions.parquet")
    user, time = (table[name].to_numpy() for name in ("user_id", "timestamp"))
    part = leave_one_out(user, time)
    last, last_but_one = (
        time[part == name][np.argsort(user[part == name])] for name in (TEST, VALIDATION)
    )
    assert len(last) == 943
    assert (last == last_but_one).sum() == 415
