"""Which interactions are held out: by a user's latest, by time, at random, or whole items or users.

All arrays are in the order of the source.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flm_torchrec.data.dataset import PART_NAMES, TEST, TRAIN, VALIDATION
from flm_torchrec.data.schema import Split
from flm_torchrec.errors import UserError

_FEWEST = 3  # a user with fewer interactions has none to spare


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitKeys:
    """What a split may go by."""

    num_rows: int
    user: NDArray[np.int32] | None  # (n,) codes, in the order of the ids
    item: NDArray[np.int32] | None  # (n,) codes, in the order of the ids
    time: NDArray[np.float64] | None  # (n,) seconds
    by_user: NDArray[np.int64] | None  # (n,) the order by user and time


def split_parts(keys: SplitKeys, rule: Split) -> NDArray[np.int8]:
    """(n,) part of each interaction."""
    if rule.kind == "leave_one_out":
        assert keys.user is not None
        assert keys.by_user is not None, "as the schema demands"
        part = leave_one_out(keys.user, keys.by_user)
    elif rule.kind == "time":
        time = np.arange(keys.num_rows) if keys.time is None else keys.time
        part = latest(time, rule)
    elif rule.kind == "random":
        part = drawn(keys.num_rows, rule)
    else:
        codes = keys.item if rule.kind == "item_cold" else keys.user
        assert codes is not None, "as the schema demands"
        part = drawn(int(codes.max()) + 1, rule)[codes]
    missing = [name for kind, name in enumerate(PART_NAMES) if not (part == kind).any()]
    if missing and rule.kind != "leave_one_out":
        raise UserError(
            f"split: {rule.kind} of {keys.num_rows} interactions leaves none for {missing[0]}; "
            "allowed: other shares, or another kind"
        )
    return part


def by_user_time(user: NDArray[np.integer], time: NDArray) -> NDArray[np.int64]:
    """(n,) the order by user and time; ties keep the order of the source."""
    if len(user) == 0:
        return np.zeros(0, np.int64)
    first, span = time.min(), time.max() - time.min() + 1
    is_whole = time.dtype.kind == "i" or bool((time == np.floor(time)).all())
    if is_whole and (int(user.max()) + 1) * int(span) < 2**63:
        # One sort of one key takes less than half the time of one by two.
        key = user.astype(np.int64)
        key *= int(span)
        key += (time - first).astype(np.int64)
        return np.argsort(key, kind="stable")
    return np.lexsort((time, user))


def leave_one_out(user: NDArray, order: NDArray[np.int64]) -> NDArray[np.int8]:
    """(n,) each user's last interaction is test, the last but one validation; `order` (n,) is that
    by user and time."""
    user = user[order]
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    sizes = np.diff(np.r_[starts, len(user)])
    last = (starts + sizes - 1)[sizes >= _FEWEST]
    part = np.full(len(user), TRAIN, np.int8)
    part[order[last]] = TEST
    part[order[last - 1]] = VALIDATION
    return part


def _counts(total: int, rule: Split) -> tuple[int, int]:
    """How many are for validation and for test: one at least."""
    return max(1, round(total * rule.validation)), max(1, round(total * rule.test))


def latest(time: NDArray, rule: Split) -> NDArray[np.int8]:
    """(n,) the latest are test, those before validation; what ties at a cut is of the later."""
    validation, test = _counts(len(time), rule)
    ordered = np.sort(time)
    part = np.full(len(time), TRAIN, np.int8)
    part[time >= ordered[max(0, len(time) - test - validation)]] = VALIDATION
    part[time >= ordered[len(time) - test]] = TEST
    return part


def drawn(total: int, rule: Split) -> NDArray[np.int8]:
    """(total,) parts by chance."""
    validation, test = _counts(total, rule)
    order = np.random.default_rng(rule.seed).permutation(total)
    part = np.full(total, TRAIN, np.int8)
    part[order[:test]] = TEST
    part[order[test : test + validation]] = VALIDATION
    return part
