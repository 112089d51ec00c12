"""What the values of a column look like, as a schema is guessed from them.

Example:
    genres = profile_columns(table)["genres"]
    print(genres.distinct, separator_of(genres))
"""

import re
from dataclasses import dataclass

import pyarrow as pa

from flm_torchrec.data.compute import pc
from flm_torchrec.data.preparing.features import is_list
from flm_torchrec.data.reading.tables import NUMBER
from flm_torchrec.data.reading.times import seconds_of_texts

_DATE = r"^\d{4}-\d{1,2}-\d{1,2}([ T]\d{1,2}:\d{2}.*)?$"
_FEW = 32  # distinct values: hours, days of a month and levels stay categories
_FEW_DECIMALS = 10
_LARGEST_COUNT = 2**31  # a larger whole number is rather a code
_COUNTED = re.compile(
    r"(^|_)(age|year|price|amount|count|num|length|duration|size|budget|runtime|"
    r"popularity|quantity|weight|height|width|days|hours|minutes|seconds)(_|$)|"
    r"^(i|int|num|dense)_?\d+$"  # as Criteo and its kin name them
)
_CODED = re.compile(
    r"(^|_)(id|code|zip|zipcode|postcode|hash|uuid|sku|isbn|gender|type|kind|class|"
    r"category|cat|segment|group|level|position|pos|rank|hour|weekday|day|month)(_|$)|"
    r"^(c|cat|cate|sparse)_?\d+$"
)
_NAMED_TEXT = re.compile(
    r"(^|_)(title|headline|name|description|abstract|summary|plot|overview|body|text|content|"
    r"review|comment|caption|synopsis|story)(_|$)"
)


@dataclass(frozen=True, slots=True)
class Profile:
    """A column of a sample of rows."""

    name: str
    # Without the missing: int64, float64, large_string, timestamp, lists, or of no use.
    values: pa.Array
    rows: int  # with the missing
    distinct: int

    @property
    def is_number(self) -> bool:
        """Whether all values are numbers, also those of a CSV file."""
        return pa.types.is_int64(self.values.type) or pa.types.is_float64(self.values.type)

    @property
    def is_text(self) -> bool:
        """Whether the values are texts that are neither numbers nor dates."""
        return pa.types.is_large_string(self.values.type)

    @property
    def is_time(self) -> bool:
        """Whether the values are dates or times."""
        return pa.types.is_timestamp(self.values.type)

    @property
    def is_list(self) -> bool:
        """Whether a value is a list."""
        return _is_list(self.values.type)

    @property
    def is_known(self) -> bool:
        """Whether the values are of a type that a schema has a use for."""
        return self.is_number or self.is_text or self.is_time or self.is_list

    @property
    def is_binary(self) -> bool:
        """Whether the values are 0 and 1, both of them."""
        return self.is_number and self.distinct == 2 and self.levels() == [0, 1]

    @property
    def is_unbounded(self) -> bool:
        """Whether most rows have a value of their own."""
        return self.distinct > max(20, self.rows / 2)

    def levels(self) -> list[float]:
        """The sorted distinct finite numbers."""
        found = pc.unique(self.values)
        return sorted(found.filter(pc.is_finite(found)).to_pylist())

    def mean_words(self) -> float:
        """Words of a text, on average."""
        words = pc.count_substring_regex(self.values, r"\S+")
        return pc.mean(words).as_py() or 0.0


def plain_name(name: str) -> str:
    """`reviewText`, `review-text` and `Review Text` as review_text."""
    parts = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    return re.sub(r"[^a-z0-9]+", "_", parts.lower()).strip("_")


def profile_columns(table: pa.Table) -> dict[str, Profile]:
    """Profile each column of a sample."""
    return {name: _profile(name, table.column(name)) for name in table.column_names}


def _is_list(kind: pa.DataType) -> bool:
    return is_list(kind) and not pa.types.is_nested(kind.value_type)


def _profile(name: str, chunks: pa.ChunkedArray) -> Profile:
    if pa.types.is_dictionary(chunks.type):
        chunks = chunks.cast(chunks.type.value_type)
    values = _typed(chunks.combine_chunks().drop_null())
    if pa.types.is_nested(values.type):
        return Profile(name, values, len(chunks), 0)
    return Profile(name, values, len(chunks), pc.count_distinct(values).as_py())


def _typed(values: pa.Array) -> pa.Array:
    """Values without a gap, as the narrowest of the types that a profile has."""
    kind = values.type
    if _is_list(kind):
        return values
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return values.cast(pa.timestamp("us"), safe=False)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return values.cast(pa.int64()) if not pa.types.is_uint64(kind) else _numbers(values)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = values.cast(pa.float64())
        return _numbers(values.filter(pc.invert(pc.is_nan(values))))
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return values if not pa.types.is_null(kind) else values.cast(pa.large_string())
    texts = values.cast(pa.large_string())
    texts = texts.filter(pc.not_equal(texts, ""))
    if len(texts) and pc.all(pc.match_substring_regex(texts, NUMBER)).as_py():
        return _numbers(pc.utf8_trim_whitespace(texts).cast(pa.float64()))
    if len(texts) and pc.all(pc.match_substring_regex(texts, _DATE)).as_py():
        seconds = seconds_of_texts(texts)
        if seconds.null_count == 0:
            return pc.multiply(seconds, 1e6).cast(pa.int64()).cast(pa.timestamp("us"))
    return texts


def _numbers(values: pa.Array) -> pa.Array:
    numbers = values.cast(pa.float64(), safe=False)
    is_whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), float(2**53)))
    return numbers.cast(pa.int64()) if pc.all(is_whole).as_py() else numbers


def is_vector(profile: Profile) -> bool:
    """Whether every list holds the same count, four or more, of decimal numbers."""
    values = profile.values
    if not len(values):
        return False
    sizes = pc.min_max(pc.list_value_length(values))
    inner = pc.list_flatten(values).type
    is_decimal = pa.types.is_floating(inner)
    return is_decimal and sizes["min"].as_py() == sizes["max"].as_py() >= 4


def is_numeric(profile: Profile) -> bool:
    """Whether the numbers measure something, rather than stand for categories."""
    name = plain_name(profile.name)
    if _CODED.search(name):
        return False
    if pa.types.is_float64(profile.values.type):
        return profile.distinct > _FEW_DECIMALS
    if pc.max(pc.abs(profile.values)).as_py() > _LARGEST_COUNT:
        return False
    return profile.distinct > _FEW or bool(_COUNTED.search(name))


def separator_of(profile: Profile) -> str | None:
    """What separates the values of a cell whose pieces are few and come again in other cells."""
    if _NAMED_TEXT.search(plain_name(profile.name)) or not len(profile.values):
        return None
    for separator in ("|", ";", ",", " "):
        has = pc.mean(pc.match_substring(profile.values, separator).cast(pa.int8())).as_py()
        if has < 0.05:
            continue
        pieces = pc.utf8_trim_whitespace(
            pc.list_flatten(pc.split_pattern(profile.values, separator))
        )
        distinct = pc.count_distinct(pieces).as_py()
        longest = 3 if separator in ("|", ";", ",") else 1
        words = pc.mean(pc.count_substring_regex(pieces, r"\S+")).as_py()
        is_list = distinct <= profile.distinct and len(pieces) >= _REPEATED[separator] * distinct
        if is_list and words <= longest:
            return separator
    return None


# How often a piece must come for the separator to be one: prose has blanks and commas too.
_REPEATED = {"|": 1.2, ";": 1.5, ",": 2.0, " ": 8.0}


def vector_separator(profile: Profile) -> str | None:
    """What separates the decimal numbers, four or more and equally many, of each cell."""
    for separator in (" ", ",", ";", "|"):
        pieces = pc.split_pattern(profile.values, separator)
        sizes = pc.min_max(pc.list_value_length(pieces))
        flat = pc.list_flatten(pieces)
        if sizes["min"].as_py() != sizes["max"].as_py() or (sizes["max"].as_py() or 0) < 4:
            continue
        is_number = pc.all(pc.match_substring_regex(flat, NUMBER)).as_py()
        if is_number and pc.any(pc.match_substring(flat, ".")).as_py():
            return separator
    return None


def is_free_text(profile: Profile) -> bool:
    """Whether the texts are sentences or titles: several words, hardly any of them twice."""
    if not profile.is_text or not len(profile.values):
        return False
    words = profile.mean_words()
    is_varied = profile.distinct > len(profile.values) / 2
    if _NAMED_TEXT.search(plain_name(profile.name)):
        return is_varied or words >= 4
    return words >= (4 if is_varied else 12)


def is_long_text(profile: Profile) -> bool:
    """Whether free text is a body rather than a title."""
    return profile.mean_words() >= 15
