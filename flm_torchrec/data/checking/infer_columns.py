"""What the columns of a table are as features and texts, guessed from their values."""

from dataclasses import dataclass, field

from flm_torchrec.data.checking.profile import (
    Profile,
    is_free_text,
    is_long_text,
    is_numeric,
    is_vector,
    plain_name,
    profile_columns,
    separator_of,
    vector_separator,
)
from flm_torchrec.data.checking.roles import is_another_time
from flm_torchrec.data.reading.tables import Table
from flm_torchrec.data.schema import EntitySchema, Feature, ItemSchema, Reviews

_BUCKETS = 10
_NO_NAME = set(".{}<>=!:[]")  # a name with these can't stand in a template or predicate


@dataclass(slots=True)
class Columns:
    """The columns of a table; one that is taken has a role already."""

    table: str
    all: dict[str, Profile]
    notes: list[str]
    taken: set[str] = field(default_factory=set)

    @property
    def free(self) -> dict[str, Profile]:
        """Those without a role."""
        return {name: column for name, column in self.all.items() if name not in self.taken}

    def take(self, *names: str | None) -> None:
        """Give columns a role."""
        self.taken |= {name for name in names if name is not None}

    def leave_out(self, name: str, why: str) -> None:
        """Take a column out of the schema, and note why."""
        self.take(name)
        self.notes.append(f"{self.table}: column '{name}' is left out: {why}")


def columns_of(table: str, sample: Table | None, notes: list[str]) -> Columns:
    """The columns of a sample; those that no schema can name are left out."""
    columns = Columns(table, {} if sample is None else profile_columns(sample.data), notes)
    for name in columns.all:
        if not name.strip() or _NO_NAME & set(name) or " and " in name:
            columns.leave_out(name, "a schema cannot name it; rename it")
    return columns


def _feature(column: Profile) -> Feature | str:
    """What a column is as a feature, or why it is none."""
    if not len(column.values):
        return "it is empty"
    if not column.is_known:
        return f"it holds {column.values.type}"
    if column.is_list:
        return Feature(kind="vector" if is_vector(column) else "multi")
    if column.distinct == 1:
        return f"it is {column.values[0]} everywhere"
    if is_another_time(column):
        return "a time"
    if column.is_number and is_numeric(column):
        return Feature(kind="numeric", buckets=_BUCKETS)
    if column.is_text:
        if separator := vector_separator(column):
            return Feature(kind="vector", separator=separator)
        if separator := separator_of(column):
            return Feature(kind="multi", separator=separator)
        if is_free_text(column):
            return "free text"
    if column.is_unbounded:
        return (
            f"it has {column.distinct:,} values in {column.rows:,} rows; as a feature it would "
            "need a hash: {kind: categorical, hash: {rows: 100000}}"
        )
    return Feature(kind="categorical")


def features_of(columns: Columns) -> dict[str, Feature]:
    """The free columns as features; those that are none are left out."""
    features = {}
    for name, column in columns.free.items():
        feature = _feature(column)
        if isinstance(feature, Feature):
            features[name] = feature
        else:
            columns.leave_out(name, feature)
    return features


def take_texts(columns: Columns) -> tuple[list[str], list[str]]:
    """The columns of short and of long free text."""
    texts = [c for c in columns.free.values() if _feature(c) == "free text"]
    columns.take(*(column.name for column in texts))
    short = [column.name for column in texts if not is_long_text(column)]
    return short, [column.name for column in texts if column.name not in short]


def _joined(names: list[str]) -> str:
    return ". ".join(f"{{{name}}}" for name in names)


def corpus_of(columns: Columns) -> str | None:
    """A template over the texts of a corpus, or None where it has none."""
    short, long = take_texts(columns)
    names = short + long or [name for name, column in columns.free.items() if column.is_text]
    return _joined(names) if names else None


def entity_of(columns: Columns, id: str) -> EntitySchema:
    """The schema of a catalogue whose id is `id`."""
    columns.take(id)
    return EntitySchema(id=id, features=features_of(columns))


def items_of(columns: Columns, id: str, reviews: list[str]) -> ItemSchema:
    """The schema of the items: the `reviews` are columns of the interactions."""
    columns.take(id)
    short, long = take_texts(columns)
    features = features_of(columns)
    text: dict[str, str | Reviews] = {}
    if short:
        year = next((name for name in features if plain_name(name) in ("year", "release_year")), "")
        lists = [
            name
            for name, feature in features.items()
            if feature.separator and feature.kind == "multi"
        ]
        first = f"{{{short[0]}}} ({{{year}}})" if year else f"{{{short[0]}}}"
        text[short[0]] = ". ".join([first, *(f"{{{name}}}" for name in [*short[1:], *lists])])
    text |= {name: f"{{{name}}}" for name in long}
    if reviews:
        text["reviews"] = Reviews(interactions=_joined(reviews))
    return ItemSchema(id=id, features=features, text=text)
