"""Texts made of the columns of a table by a template, "{title} ({year}). {genres}"."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from flm_torchrec.data.compute import pc
from flm_torchrec.data.preparing.features import feature_arrays, is_list
from flm_torchrec.data.reading.tables import Table
from flm_torchrec.data.schema import Feature, template_parts

_GAP = "\x00"  # stands for a missing value until the text is tidied
# A gap takes along the brackets around it, at the start of a text the separators behind it, and
# elsewhere those before it.
_TIDY = (
    (r"[(\[]\s*\x00\s*[)\]]", _GAP),
    (r"^(\s*\x00[\s,;:.|/-]*)+", ""),
    (r"[\s,;:|/-]*\x00", ""),
)


def rendered(
    table: Table, template: str, features: Mapping[str, Feature], *, hidden: str | None = None
) -> pa.Array:
    """(n,) the template filled in, without litter of missing values; null where all are. Those of
    the column `hidden` count as missing."""
    parts, is_known = [], pa.array(np.zeros(table.num_rows, bool))
    for literal, column in template_parts(template):
        parts.append(pa.scalar(literal, pa.large_string()))
        if column:
            values = pa.nulls(table.num_rows, pa.large_string())
            if column != hidden:
                values = _texts(table, column, features.get(column))
            is_known = pc.or_(is_known, values.is_valid())
            parts.append(pc.fill_null(values, _GAP))
    joined = pc.binary_join_element_wise(*parts, pa.scalar("", pa.large_string()))
    has_gap = pc.match_substring(joined, _GAP)
    tidy = joined
    for pattern, replacement in _TIDY:
        tidy = pc.replace_substring_regex(tidy, pattern, replacement)
    joined = pc.if_else(has_gap, pc.utf8_trim_whitespace(tidy), joined)
    return pc.if_else(is_known, joined, None)


def _texts(table: Table, name: str, feature: Feature | None) -> pa.Array:
    """The column as texts, several values of a row joined by ", "."""
    separator = None if feature is None else feature.separator
    if separator is None and not is_list(table.raw(name).type):
        return table.texts(name)
    several = Feature(kind="multi", separator=separator)
    lists = feature_arrays(table, {name: several}, {})[name].cast(pa.large_list(pa.large_string()))
    joined = pc.binary_join(lists, pa.scalar(", ", pa.large_string()))
    return pc.if_else(pc.equal(joined, ""), None, joined)
