"""What the keys, times and labels of all interactions say about them."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from flm_torchrec.data.checking.findings import Findings, percent
from flm_torchrec.data.preparing.split import SplitKeys
from flm_torchrec.data.schema import ALWAYS, Label

_MOST_LEVELS = 12  # that are shown
_RAREST = 0.001  # share of a class that is nearly absent


def count_keys(keys: SplitKeys) -> Findings:
    """Distinct ids, sparsity, repetitions, interactions a user, time span and ties."""
    found = Findings()
    for name, codes in (("users", keys.user), ("items", keys.item)):
        if codes is not None:
            found.facts.append(f"distinct {name}: {_distinct(codes):,}")
    if keys.user is not None:
        counts = np.bincount(keys.user)
        found.facts.append(
            f"interactions a user: min {counts.min():,}, median {np.median(counts):g}, "
            f"max {counts.max():,}"
        )
    if keys.user is not None and keys.item is not None:
        found.facts += _pairs(keys.user, keys.item, keys.time)
    if keys.time is not None:
        _count_times(keys, keys.time, found)
    return found


def _distinct(codes: NDArray[np.int32]) -> int:
    return int(codes.max()) + 1 if len(codes) else 0


def _pairs(
    user: NDArray[np.int32], item: NDArray[np.int32], time: NDArray[np.float64] | None
) -> Iterator[str]:
    n, items = len(user), _distinct(item)
    pair = user.astype(np.int64) * items + item
    order = np.argsort(pair, kind="stable") if time is None else np.lexsort((time, pair))
    same = np.diff(pair[order]) == 0
    pairs = n - int(same.sum())
    share = n / max(1, _distinct(user) * items)
    yield f"filled: {share:.3%} of the matrix of users and items"
    yield f"rows that repeat a user and item: {percent(n - pairs, n)}"
    if time is not None:
        again = int((same & (np.diff(time[order]) == 0)).sum())
        yield f"rows that repeat a user, item and time: {percent(again, n)}"


def _count_times(keys: SplitKeys, time: NDArray[np.float64], found: Findings) -> None:
    low, high = float(time.min()), float(time.max())
    found.facts.append(f"time: {_date(low)} to {_date(high)}")
    if low == high and len(time) > 1:
        found.warnings.append("interactions: the time is the same in all rows, it orders nothing")
    if keys.user is None or keys.by_user is None:
        return
    order = keys.by_user
    same = (np.diff(keys.user[order]) == 0) & (np.diff(time[order]) == 0)
    ties = int((np.append(same, False) | np.insert(same, 0, False)).sum())
    found.facts.append(
        f"rows that tie in time with another of the user: {percent(ties, len(time))}"
    )


def _date(seconds: float) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g} s"


def balance(
    name: str,
    label: Label,
    values: NDArray[np.float32],
    is_train: NDArray[np.bool_],
    classes: Sequence[str],
) -> Findings:
    """How a label is distributed; `values` (n,) with NaN where it is missing.

    `classes` are the names of the values 0, 1, ..., where they have any.
    """
    found = Findings()
    is_known = ~np.isnan(values)
    known, trained = values[is_known], np.unique(values[is_known & is_train])
    levels, counts = np.unique(known, return_counts=True)
    gaps = len(values) - len(known)
    there = f", missing in {percent(gaps, len(values))}" if gaps else ""
    named = [classes[int(level)] if classes else f"{level:.12g}" for level in levels[:_MOST_LEVELS]]
    if not len(trained):
        where = "training rows" if len(known) else "rows"
        found.problems.append(f"interactions: the label '{name}' is missing in all {where}")
    elif label.kind == "real":
        found.facts.append(
            f"label {name}: mean {known.mean():.4g}, standard deviation {known.std():.4g}, "
            f"{levels[0]:g} to {levels[-1]:g}{there}"
        )
        return found
    elif label.kind == "binary":
        found.facts.append(f"label {name}: 1 in {known.mean():.3%}{there}")
    else:
        shown = [f"{level}: {count:,}" for level, count in zip(named, counts, strict=False)]
        more = f"; {len(levels) - len(shown)} more" if len(levels) > len(shown) else ""
        found.facts.append(f"label {name}: {'; '.join(shown)}{more}{there}")
    if label.value == ALWAYS:
        return found
    if len(trained) == 1:
        where = "rows" if len(levels) == 1 else "training rows"
        only = classes[int(trained[0])] if classes else f"{trained[0]:.12g}"
        found.problems.append(f"interactions: the label '{name}' is {only} in all {where}")
    elif label.kind == "binary" and len(trained) and counts.min() < _RAREST * len(known):
        rarest = int(np.argmin(counts))
        found.warnings.append(
            f"interactions: the label '{name}' is hardly ever {levels[rarest]:g}: "
            f"{percent(int(counts[rarest]), len(known))}"
        )
    return found
