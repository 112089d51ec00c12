"""What a schema does with the columns of a table, each use a function that reads one chunk."""

from collections.abc import Callable, Mapping

import pyarrow as pa

from flm_torchrec.data.preparing.features import feature_arrays, vector_width
from flm_torchrec.data.preparing.templates import rendered
from flm_torchrec.data.reading.conditions import holds
from flm_torchrec.data.reading.tables import Table
from flm_torchrec.data.schema import (
    ALL,
    NONE,
    EntitySchema,
    Feature,
    InteractionSchema,
    ItemSchema,
    Reviews,
    template_columns,
)

# (what for, its name) -> reader. What for is "id", "predicate", "text" or the kind of a feature.
Uses = dict[tuple[str, str], Callable[[Table], pa.Array]]


def entity_uses(entity: EntitySchema) -> Uses:
    """How the table of users or of items is read."""
    uses: Uses = {("id", entity.id): lambda table: table.ids(entity.id)}
    uses |= _feature_uses(entity.features)
    for name, template in entity.text.items() if isinstance(entity, ItemSchema) else ():
        if isinstance(template, str):
            uses["text", name] = _text_reader(template, entity.features)
    return uses


def interaction_uses(names: InteractionSchema, items: ItemSchema | None) -> Uses:
    """How the interactions are read, but for their ids, times and labels."""
    uses = _feature_uses(names.context)
    for predicate in (names.history, names.positives):
        if predicate not in (ALL, NONE):
            uses["predicate", predicate] = lambda table, text=predicate: holds(table, text)
    for name, template in items.text.items() if items is not None else ():
        if isinstance(template, Reviews):
            uses["text", name] = _text_reader(template.interactions, names.context)
    return uses


def corpus_uses(template: str) -> Uses:
    """How a corpus is read."""
    return {("text", "corpus"): _text_reader(template, {})}


def columns_of(entity: EntitySchema) -> set[str]:
    """The columns of the users or items that the schema uses."""
    texts = entity.text.values() if isinstance(entity, ItemSchema) else ()
    templates = (text for text in texts if isinstance(text, str))
    return {entity.id, *entity.features} | {c for text in templates for c in template_columns(text)}


def _text_reader(template: str, features: Mapping[str, Feature]) -> Callable[[Table], pa.Array]:
    return lambda table: rendered(table, template, features)


def _feature_uses(features: Mapping[str, Feature]) -> Uses:
    return {
        (feature.kind, name): _feature_reader(name, feature) for name, feature in features.items()
    }


def _feature_reader(name: str, feature: Feature) -> Callable[[Table], pa.Array]:
    """Reads the values themselves, also where they are to be hashed."""
    feature = feature.model_copy(update={"hash": None})
    widths: dict[str, int] = {}

    def read(table: Table) -> pa.Array:
        if feature.kind == "vector" and name not in widths:
            width = vector_width(table, name, feature.separator)
            if width is None:
                return pa.nulls(table.num_rows)
            widths[name] = width
        return feature_arrays(table, {name: feature}, widths)[name]

    return read
