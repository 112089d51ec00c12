"""A chunk of the interactions, read by the schema: arrays that can be stored and merged.

"user" and "item" are ids, "time" seconds, "positive" and "history" booleans, "row" the row of the
chunk; "label NAME" float32, or texts of classes; "feature NAME" as `feature_arrays` has it;
"text NAME" what reviews are made of. Ids and plain values are dictionaries with int32 codes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from flm_torchrec.data.compute import pc
from flm_torchrec.data.predicate import parse_predicate
from flm_torchrec.data.preparing.features import encoded, feature_arrays, stored_features
from flm_torchrec.data.preparing.templates import rendered
from flm_torchrec.data.preparing.vocabulary import of_one_type
from flm_torchrec.data.reading.conditions import holds
from flm_torchrec.data.reading.tables import Table, discrete_type
from flm_torchrec.data.schema import (
    ALL,
    ALWAYS,
    NONE,
    InteractionSchema,
    Label,
    Reviews,
    Schema,
    template_columns,
)


@dataclass(frozen=True, slots=True)
class LogReader:
    """How chunks of the interactions are read."""

    schema: Schema
    widths: Mapping[str, int] = field(default_factory=dict)  # of vectors
    # "user", "item" -> the ids that are allowed, and what the catalogue is called
    known: Mapping[str, tuple[Callable[[], pa.Array], str]] = field(default_factory=dict)

    @property
    def names(self) -> InteractionSchema:
        """The schema of the interactions."""
        assert self.schema.interactions is not None, "there are interactions"
        return self.schema.interactions

    @property
    def reviews(self) -> dict[str, Reviews]:
        """The texts of items that interactions say."""
        texts = {} if self.schema.items is None else self.schema.items.text
        return {name: text for name, text in texts.items() if isinstance(text, Reviews)}

    def columns(self) -> list[str]:
        """The columns that are read."""
        names = self.names
        used = [name for name in (names.user, names.item, names.time) if name is not None]
        predicates = [names.history, names.positives]
        for name, label in names.labels.items():
            used += [name] if label.value is None else []
            predicates += [text for text in (label.value, label.where) if text is not None]
        for text in predicates:
            if text not in (ALL, NONE, ALWAYS):
                used += [comparison.column for comparison in parse_predicate(text)]
        used += names.context
        for review in self.reviews.values():
            used += template_columns(review.interactions)
        return list(dict.fromkeys(used))

    def read(self, table: Table) -> pa.RecordBatch:
        """The arrays of a chunk; bad rows are left out where the chunk collects them."""
        names, arrays = self.names, {}
        for key, column in (("user", names.user), ("item", names.item)):
            if column is not None:
                arrays[key] = self._ids(table, key, column)
        if names.time is not None:
            arrays["time"] = pa.array(table.times(names.time).astype(np.float64))
        for name, label in names.labels.items():
            arrays[f"label {name}"] = label_array(table, name, label)
        for key, text in (("positive", names.positives), ("history", names.history)):
            if text not in (ALL, NONE):
                arrays[key] = pc.fill_null(holds(table, text), False)
        for name, review in self.reviews.items():
            arrays[f"text {name}"] = rendered(table, review.interactions, names.context)
        arrays["row"] = pa.array(np.arange(table.num_rows, dtype=np.int32))
        features = feature_arrays(table, names.context, self.widths)
        if table.bad is not None and table.bad.found:
            kept = pa.array(table.bad.kept(table.num_rows))
            arrays = {name: array.take(kept) for name, array in arrays.items()}
            features = {name: array.take(kept) for name, array in features.items()}
        stored = {
            name: encoded(array) if name in ("user", "item") or _is_class(name, array) else array
            for name, array in arrays.items()
        }
        return pa.record_batch(stored | stored_features(features, names.context))

    def _ids(self, table: Table, key: str, column: str) -> pa.Array:
        ids = table.present(column)
        if key not in self.known:
            return ids
        read, catalogue = self.known[key]
        distinct = pc.dictionary_encode(ids)
        values = distinct.dictionary.cast(discrete_type(distinct.dictionary))
        is_unknown = pc.index_in(*of_one_type(values, read())).is_null().take(distinct.indices)
        shown = values.take(distinct.indices)
        what = f"is no id of {catalogue}, which must list them all"
        table.without(shown, is_unknown, column, lambda id: f"{id} {what}")
        return ids


def _is_class(name: str, array: pa.Array) -> bool:
    return name.startswith("label ") and not pa.types.is_float32(array.type)


def label_array(table: Table, name: str, label: Label) -> pa.Array:
    """(n,) float32, or plain values of a multiclass label; null = missing."""
    if label.value == ALWAYS:
        values = pa.array(np.ones(table.num_rows))
    elif label.value is not None:
        values = holds(table, label.value)
    elif label.kind == "multiclass":
        values = table.column(name)
    else:
        values = table.numbers(name)
    if label.kind == "ordinal":
        what = (
            "is not allowed; an ordinal label has levels up to 16777216, which float32 tells apart"
        )
        is_large = pc.greater(pc.abs(values), 2**24)
        values = table.without(values, is_large, name, lambda value: f"{value:.12g} {what}")
    if label.kind == "binary":
        values = values.cast(pa.int64()) if pa.types.is_boolean(values.type) else values
        is_other = pc.invert(pc.is_in(values, pa.array([0, 1, None], values.type)))
        what = "is not allowed; a binary label is 0, 1 or empty"
        values = table.without(values, is_other, name, lambda value: f"{value:g} {what}")
    if label.where is not None:
        values = pc.if_else(holds(table, label.where), values, None)
    return values if label.kind == "multiclass" else values.cast(pa.float32(), safe=False)
