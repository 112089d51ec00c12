"""Texts made from the columns of a table: "{title} ({year}). {genres}"."""

import pyarrow as pa
import pyarrow.compute as pc

from flm_torchrec.data.columns import split_values
from flm_torchrec.data.schema import EntitySchema, template_parts
from flm_torchrec.data.tables import Table, is_list

_GAP = "\x00"
# A missing value takes along the brackets around it, the separators before it and, at the start
# of the text, those behind it.
_LITTER = (
    (r"[(\[]\s*(\x00\s*)+[)\]]", _GAP),
    (r"^(\s*\x00[\s,;:.|/-]*)+", ""),
    (r"[\s,;:|/-]*\x00", ""),
)


def _shown(table: Table, name: str, separator: str | None) -> pa.Array:
    """The column as text; the values of a multi-valued one stand with commas between."""
    column = table.column(name)
    if separator is not None or is_list(column):
        lists = split_values(table, name, separator)
        joined = pc.binary_join(lists, pa.scalar(", ", pa.large_string()))
        return pc.if_else(pc.equal(joined, ""), None, joined)
    if pa.types.is_floating(column.type):
        column = table.discrete(name)
    return column.cast(pa.large_string())


def render(table: Table, template: str, schema: EntitySchema) -> list[str]:
    """(n,) the template of each row; missing values leave no litter, rows without any are ""."""
    pieces, missing = [], []
    for literal, name in template_parts(template):
        pieces.append(pa.scalar(literal, pa.large_string()))
        if name:
            feature = schema.features.get(name)
            shown = _shown(table, name, feature.separator if feature else None)
            missing.append(shown.is_null())
            pieces.append(pc.fill_null(shown, _GAP))
    text = pc.binary_join_element_wise(*pieces, pa.scalar("", pa.large_string()))
    for pattern, replacement in _LITTER:
        text = pc.replace_substring_regex(text, pattern, replacement)
    all_missing = missing[0]
    for mask in missing[1:]:
        all_missing = pc.and_(all_missing, mask)
    return pc.utf8_trim_whitespace(pc.if_else(all_missing, "", text)).to_pylist()
