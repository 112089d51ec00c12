"""Times in seconds since 1970, from numbers, from dates, and from texts of either."""

import time

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.compute import pc

_DATE = r"^\s*\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?\s*(Z|[+-]\d{2}(:?\d{2})?)?\s*$"
_ZONE = r"\d{2}:\d{2}.*(Z|[+-]\d{2}(:?\d{2})?)$"
_TOO_FINE = r"(\.\d{6})\d+"  # below microseconds
_LATEST = 4_102_444_800.0  # the year 2100: no time in seconds is beyond
_DAY = 86_400.0
_TICKS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}  # of a second


def seconds_of_dates(column: pa.Array) -> pa.Array:
    """(n,) float64 of a column of dates or timestamps."""
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    ticks = column.cast(pa.int64()).cast(pa.float64(), safe=False)
    return pc.divide(ticks, _TICKS[column.type.unit])


def seconds_of_texts(texts: pa.Array) -> pa.Array:
    """(n,) float64 of ISO 8601 dates ("2024-05-01", "2024-05-01T12:30:00Z"); null = no date."""
    distinct = pc.dictionary_encode(texts)
    words = pc.utf8_trim_whitespace(distinct.dictionary)
    words = pc.if_else(pc.match_substring_regex(words, _DATE), words, None)
    words = pc.replace_substring_regex(words, _TOO_FINE, r"\1")
    has_zone = pc.match_substring_regex(words, _ZONE)
    with_zone = _parsed(pc.if_else(has_zone, words, None), pa.timestamp("us", "UTC"))
    without = _parsed(pc.if_else(has_zone, None, words), pa.timestamp("us"))
    return pc.coalesce(with_zone, without).take(distinct.indices)


def _parsed(words: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return seconds_of_dates(words.cast(kind))
    except pa.ArrowInvalid:  # at least one is no date: "2024-13-01"
        return pa.concat_arrays([_parsed_or_null(word, kind) for word in words])


def _parsed_or_null(word: pa.Scalar, kind: pa.DataType) -> pa.Array:
    try:
        return seconds_of_dates(pa.array([word.as_py()], pa.large_string()).cast(kind))
    except pa.ArrowInvalid:
        return pa.nulls(1, pa.float64())


def beyond(seconds: pa.Array) -> pa.Array:
    """(n,) whether a number is too large for seconds."""
    return pc.greater(pc.abs(seconds.cast(pa.float64(), safe=False)), _LATEST)


def unit_of(number: float) -> str:
    """What a number that is too large for seconds is likely to count."""
    for unit, factor in (("milliseconds", 1e3), ("microseconds", 1e6)):
        if abs(number) <= _LATEST * factor:
            return f"{unit}: divide by {factor:.0e}".replace("e+0", "e")
    return "nanoseconds: divide by 1e9"


def in_future(seconds: pa.Array) -> pa.Array:
    """(n,) whether a time is later than a day from now."""
    return pc.greater(seconds, int(time.time() + _DAY))


def are_written_dates(numbers: NDArray) -> bool:
    """Whether all numbers, one at least, are dates written as YYYYMMDD: 20240131."""
    if numbers.min() < 1900_01_01 or numbers.max() > 2100_12_31:
        return False
    found = np.unique(numbers)
    year, month, day = found // 10_000, found // 100 % 100, found % 100
    if (month < 1).any() or (month > 12).any() or (found != np.floor(found)).any():
        return False
    first = ((year - 1970) * 12 + month - 1).astype(np.int64).astype("datetime64[M]")
    days = (first + 1).astype("datetime64[D]") - first.astype("datetime64[D]")
    return bool(((day >= 1) & (day <= days.astype(np.int64))).all())
