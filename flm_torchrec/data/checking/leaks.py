"""Features and texts that hold a label: whoever reads them has nothing left to predict."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.compute import pc

_FEWEST = 20  # rows of each class, below which chance says as much
_NEARLY_ALL = 0.95
_TEXTS = 5_000  # rows whose words are compared


def find_leaks(
    labels: Mapping[str, NDArray[np.float32]], columns: Mapping[str, pa.Array]
) -> Iterator[str]:
    """What each label (n,), NaN = missing, has of itself in the columns, each (n,)."""
    for label, values in labels.items():
        is_known = ~np.isnan(values)
        if len(np.unique(values[is_known])) > _FEWEST:
            continue
        for name, column in columns.items():
            seen = column.filter(pa.array(is_known))
            if told := _told(seen, values[is_known]):
                yield f"{name} holds the label '{label}': {told}"


def _told(column: pa.Array, label: NDArray[np.float32]) -> str | None:
    levels = np.unique(label)
    counts = [(label == level).sum() for level in levels]
    if len(levels) < 2 or sorted(counts)[-2] < _FEWEST:
        return None
    if pa.types.is_large_string(column.type):
        words = _word(column, label, levels)
        if words is not None:
            return words
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        numbers = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        equal = min((numbers[label == level] == level).mean() for level in levels)
        if equal >= _NEARLY_ALL:
            return f"it equals it in {equal:.1%} of the rows or more"
        if _is_split(numbers, label, levels):
            return "its ranges do not overlap"
    return "each of its values has one label" if _decides(column, label) else None


def _decides(column: pa.Array, label: NDArray[np.float32]) -> bool:
    """Whether equal values always have equal labels, and there are far fewer than rows."""
    codes = pc.fill_null(pc.dictionary_encode(column).indices, -1).to_numpy() + 1
    distinct = int(codes.max()) + 1
    if distinct < 2 or distinct > len(codes) / 10:
        return False
    lowest, highest = np.full(distinct, np.inf), np.full(distinct, -np.inf)
    np.minimum.at(lowest, codes, label)
    np.maximum.at(highest, codes, label)
    return bool((lowest >= highest).all())


def _is_split(
    numbers: NDArray[np.float64], label: NDArray[np.float32], levels: NDArray[np.float32]
) -> bool:
    """Whether a threshold on the numbers tells the two classes apart."""
    if len(levels) != 2:
        return False
    low, high = (numbers[(label == level) & ~np.isnan(numbers)] for level in levels)
    return bool(len(low) and len(high) and (low.max() < high.min() or high.max() < low.min()))


def _word(texts: pa.Array, label: NDArray[np.float32], levels: NDArray[np.float32]) -> str | None:
    """A word that stands in nearly all texts of one class and in hardly any other."""
    if len(texts) > _TEXTS:
        rows = np.linspace(0, len(texts) - 1, _TEXTS).astype(np.int64)
        texts, label = texts.take(pa.array(rows)), label[rows]
    lower = pc.fill_null(pc.utf8_lower(texts), "")
    pieces = pc.split_pattern_regex(lower, r"[^\p{L}\p{N}.]+")
    words = pc.dictionary_encode(pc.utf8_trim(pc.list_flatten(pieces), "."))
    text = np.repeat(np.arange(len(texts)), pc.list_value_length(pieces).to_numpy())
    pairs = np.unique(words.indices.to_numpy() * np.int64(len(texts)) + text)  # once a text
    level = np.searchsorted(levels, label)
    totals = np.bincount(level, minlength=len(levels))
    place = (pairs // len(texts)) * len(levels) + level[pairs % len(texts)]
    size = len(words.dictionary) * len(levels)
    counts = np.bincount(place, minlength=size).reshape(-1, len(levels))
    inside = counts / totals
    outside = (counts.sum(axis=1, keepdims=True) - counts) / (len(texts) - totals)
    is_enough = np.minimum(totals, len(texts) - totals) >= _FEWEST
    tells = (inside >= _NEARLY_ALL) & (outside <= 1 - _NEARLY_ALL) & is_enough
    tells[pc.equal(words.dictionary, "").to_numpy(zero_copy_only=False)] = False
    if not tells.any():
        return None
    word, best = np.argwhere(tells)[0]
    return (
        f"'{words.dictionary[int(word)]}' is in {inside[word, best]:.1%} of its texts where it "
        f"is {levels[best]:g}, in {outside[word, best]:.1%} of the others"
    )
