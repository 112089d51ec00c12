"""What synthetic data is made of: skewed draws, and outcomes whose best possible AUC is known."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Effects = Mapping[str, Floats]
Bools = NDArray[np.bool_]
TEST = 0.1  # share of a log that is held out for the test, unless a schema says otherwise
_SYLLABLES = [first + then for first in "bcdfghjklmnprstvwz" for then in "aeiou"]


def zipf(
    rng: np.random.Generator, count: int | NDArray[np.int64], size: int, power: float
) -> NDArray[np.int64]:
    """`size` numbers from 0 to `count` - 1, number r drawn about as often as (r + 1) ** -power.

    `count` may differ from number to number: (size,).
    """
    rest = 1.0 - power
    assert rest != 0.0, "the inverse of the distribution is another at a power of 1"
    drawn = (rng.random(size) * ((count + 1.0) ** rest - 1.0) + 1.0) ** (1.0 / rest)
    return np.minimum(drawn.astype(np.int64) - 1, count - 1)


def words(rng: np.random.Generator, count: int) -> NDArray[np.object_]:
    """(count,) different invented words."""
    syllables = len(_SYLLABLES)
    codes = rng.choice(syllables**3, size=count, replace=False)
    spelled = ["".join(_SYLLABLES[c // syllables**p % syllables] for p in range(3)) for c in codes]
    return np.array(spelled, dtype=object)


def sigmoid(logits: Floats) -> Floats:
    """Logits to probabilities."""
    return (0.5 + 0.5 * np.tanh(0.5 * logits)).astype(np.float32)  # which does not overflow


def auc(score: Floats, label: Bools) -> float:
    """The chance that a true row scores higher than a false one, ties counting half; else nan."""
    false = np.sort(score[~label])
    true = score[label]
    if not len(false) or not len(true):
        return float("nan")
    below = np.searchsorted(false, true, "left").mean()
    not_above = np.searchsorted(false, true, "right").mean()
    return float((below + not_above) / 2 / len(false))


def _expected_auc(p: Floats) -> float:
    """The AUC that `auc` expects of labels drawn from these probabilities (n,)."""
    true = np.sort(p).astype(np.float64)
    false = 1.0 - true
    below = np.cumsum(false) - false / 2
    return float((true * below).sum() / true.sum() / false.sum())


class Outcome:
    """Probability of what may come of an interaction, by causes whose `shares` of the variance of
    the logit are given.

    Slope and offset are such that a sample of effects (n,) has the wanted `rate` and best AUC.
    """

    def __init__(
        self, shares: Mapping[str, float], sample: Effects, *, rate: float, best_auc: float
    ) -> None:
        self.shares = shares
        self.scales = {name: (effect.mean(), effect.std()) for name, effect in sample.items()}
        score = self._score(sample)
        self.slope = _bisect(
            lambda slope: (
                _expected_auc(sigmoid(slope * score + _offset(slope * score, rate))) < best_auc
            ),
            0.0,
            20.0,
        )
        self.offset = _offset(self.slope * score, rate)

    def _score(self, effects: Effects) -> Floats:
        parts = []
        for name, share in self.shares.items():
            middle, deviation = self.scales[name]
            parts.append((effects[name] - middle) * (share**0.5 / max(deviation, 1e-6)))
        return np.stack(parts).sum(axis=0)

    def logits(self, effects: Effects) -> Floats:
        """(n,) of each cause -> (n,)"""
        return (self._score(effects) * self.slope + self.offset).astype(np.float32)


def _offset(logits: Floats, rate: float) -> float:
    """What added to the logits makes their mean probability `rate`."""
    return _bisect(lambda offset: sigmoid(logits + offset).mean() < rate, -40.0, 40.0)


def _bisect(is_low: Callable[[float], Any], low: float, high: float) -> float:
    """Where `is_low` turns false."""
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if is_low(middle) else (low, middle)
    return low


class BestAUC:
    """Collects true probabilities and labels by blocks of rows: no model can rank them better."""

    def __init__(self) -> None:
        self.blocks: list[tuple[Floats, Bools, Bools]] = []

    def add(self, p: Floats, label: Bools, is_test: Bools) -> None:
        """Append (n,) rows, those whose label is there."""
        self.blocks.append((p, label, is_test))

    def result(self) -> dict[str, float | None]:
        """AUC of the probabilities over all rows, and over the test part of the default split;
        None where labels are all alike."""
        p, label, is_test = (np.concatenate(column) for column in zip(*self.blocks, strict=True))
        found = {"all": auc(p, label), "test": auc(p[is_test], label[is_test])}
        return {name: None if np.isnan(value) else value for name, value in found.items()}


def in_test(first: int, count: int, total: int, together: int = 1) -> Bools:
    """(count,) of the rows from `first` on, which are the last tenth of `total` rows in time order;
    `together` rows have one time."""
    cut = (total - round(total * TEST)) // together * together
    return np.arange(first, first + count) >= cut
