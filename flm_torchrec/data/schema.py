"""What the columns of a data folder mean: the typed form of its `schema.yaml`.

Example:
    schema = load_yaml(Path("data/ml-100k/schema.yaml"), Schema)
    print(schema.items.features["genres"].kind)
"""

from string import Formatter
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, field_validator, model_validator

from flm_torchrec.data.predicate import parse_predicate
from flm_torchrec.typed_yaml import Strict

T = TypeVar("T")
Part = Annotated[float, Field(gt=0, lt=1)]
LabelKind = Literal["binary", "ordinal", "real", "multiclass"]
SplitKind = Literal["leave_one_out", "time", "random", "item_cold", "user_cold"]
ALWAYS, ALL, NONE = "always", "all", "none"


def _kind_alone(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


def _rows_alone(value: Any) -> Any:
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return {"rows": value} if is_count else value


def _label_alone(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    is_predicate = value == ALWAYS or any(operator in value for operator in "<>=!")
    return {"kind": "binary", "value": value} if is_predicate else {"kind": value}


class Hash(Strict):
    """Values share rows by their hash, instead of having one each.

    With `ways: 2` a value has a row in each of two tables, whose sum stands for it: `rows` squared
    values are told apart (quotient-remainder trick; Shi et al., 2020).
    """

    rows: Annotated[int, Field(ge=1)]  # of each table
    ways: Literal[1, 2] = 1


Hashed = Annotated[Hash | None, BeforeValidator(_rows_alone)]
# A key of a feature -> the kinds that may have it.
_MAY_HAVE = {
    "buckets": ("numeric",),
    "separator": ("multi", "vector"),
    "hash": ("categorical", "multi"),
}


class Feature(Strict):
    """A column that enters the model: through an embedding table, or as numbers."""

    kind: Literal["categorical", "multi", "numeric", "vector"]
    buckets: Annotated[int, Field(ge=2)] | None = None  # quantile buckets, beside the number
    separator: Annotated[str, Field(min_length=1)] | None = None  # without it: lists, in parquet
    hash: Hashed = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "Feature":
        for name, kinds in _MAY_HAVE.items():
            if getattr(self, name) is not None and self.kind not in kinds:
                raise ValueError(f"a feature of kind {self.kind} has no '{name}'")
        return self


Features = dict[str, Annotated[Feature, BeforeValidator(_kind_alone)]]


class EntitySchema(Strict):
    """The table of users or of items; one that is only an id needs no file."""

    id: str
    hash: Hashed = None  # of the ids
    features: Features = {}

    @field_validator("features")
    @classmethod
    def _features_can_be_modules(cls, features: dict[str, Feature]) -> dict[str, Feature]:
        return _without_dots(features)

    @model_validator(mode="after")
    def _id_is_no_feature(self) -> "EntitySchema":
        if self.id in self.features:
            raise ValueError(f"'{self.id}' is the id, which is a feature anyway: leave it out")
        return self


class Reviews(Strict):
    """A text of an item, made of what its training interactions say of it."""

    interactions: str  # template over columns of the interactions
    most: Annotated[int, Field(ge=1)] = 10  # interactions an item, the latest

    @field_validator("interactions")
    @classmethod
    def _template_parses(cls, template: str) -> str:
        return _template(template)


class ItemSchema(EntitySchema):
    """The table of items. Each text and each vector is a view of the item."""

    # name -> template over columns, "{title} ({year}). {genres}", or reviews
    text: dict[str, str | Reviews] = {}

    @field_validator("text")
    @classmethod
    def _templates_parse(cls, text: dict[str, str | Reviews]) -> dict[str, str | Reviews]:
        for template in text.values():
            if isinstance(template, str):
                _template(template)
        return _without_dots(text)


class Label(Strict):
    """What may come of an interaction."""

    kind: LabelKind
    # `always`, or a predicate, "rating >= 4"; else the column of the label's name
    value: str | None = None
    where: str | None = None  # a predicate: elsewhere the label is missing

    @model_validator(mode="after")
    def _predicates_parse(self) -> "Label":
        if self.value is not None and self.kind != "binary":
            raise ValueError(f"a label of kind {self.kind} has no 'value'; only binary ones have")
        if self.value not in (None, ALWAYS):
            parse_predicate(str(self.value))
        if self.where is not None:
            parse_predicate(self.where)
        return self


class InteractionSchema(Strict):
    """The table of interactions: who, what, when, in which circumstances, and what came of it."""

    user: str | None = None
    item: str | None = None
    time: str | None = None  # seconds since 1970, or dates
    context: Features = {}  # features of the interaction itself: device, hour, position
    labels: dict[str, Annotated[Label, BeforeValidator(_label_alone)]] = {}
    history: str = ALL  # all, none or a predicate: what enters a user's history
    positives: str = ALL  # all or a predicate: what ranking wants on top
    negatives: Literal["sampled", "logged"] = "sampled"  # logged: what is no positive
    order: Literal["by_user", "by_log"] = "by_user"
    repeats: bool = True  # False: a user never meets an item twice
    unknown_ids: Literal["error", "unknown"] = "error"  # ids that users or items lack

    @field_validator("labels", "context")
    @classmethod
    def _names_can_be_modules(cls, named: dict[str, T]) -> dict[str, T]:
        return _without_dots(named)

    @field_validator("history", "positives")
    @classmethod
    def _predicates_parse(cls, predicate: str) -> str:
        if predicate not in (ALL, NONE):
            parse_predicate(predicate)
        return predicate

    @model_validator(mode="after")
    def _has_what_its_order_needs(self) -> "InteractionSchema":
        missing = [name for name in ("user", "item", "time") if getattr(self, name) is None]
        if self.order == "by_user" and missing:
            raise ValueError(f"order: by_user needs '{missing[0]}', or say order: by_log")
        if self.history != NONE and missing:
            raise ValueError(f"a history needs '{missing[0]}', or say history: none")
        if self.order == "by_user" and self.history == NONE:
            raise ValueError("order: by_user reads histories: history: none needs order: by_log")
        if self.positives == NONE:
            raise ValueError("positives: none is not allowed; all or a predicate is")
        if self.negatives == "logged":
            if self.order != "by_log" or self.user is None or self.item is None:
                raise ValueError("negatives: logged needs order: by_log, 'user' and 'item'")
            if self.positives == ALL:
                raise ValueError("negatives: logged needs a predicate in 'positives'")
        return self


class Split(Strict):
    """Which interactions are held out; shares are of interactions, or of items or users."""

    kind: SplitKind
    validation: Part = 0.1  # leave_one_out has one a user instead
    test: Part = 0.1
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> "Split":
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} and test {self.test} leave nothing")
        return self


class Schema(Strict):
    """A data folder."""

    users: EntitySchema | None = None
    items: ItemSchema | None = None
    interactions: InteractionSchema | None = None
    corpus: str | None = None  # template over the columns of corpus; of .txt files "{text}"
    split: Annotated[Split | None, BeforeValidator(_kind_alone)] = None
    on_bad_rows: Literal["error", "skip", "quarantine"] = "error"
    grow_from: str | None = None  # a folder, seen from this one, whose vocabularies keep their rows

    @field_validator("corpus")
    @classmethod
    def _template_parses(cls, template: str | None) -> str | None:
        return template and _template(template)

    @model_validator(mode="before")
    @classmethod
    def _entities_of_ids_alone(cls, given: Any) -> Any:
        """Users and items that only the interactions know consist of their ids."""
        if not isinstance(given, dict) or not isinstance(given.get("interactions"), dict):
            return given
        made = {}
        for entity, key in (("users", "user"), ("items", "item")):
            column = given["interactions"].get(key)
            if given.get(entity) is None and isinstance(column, str):
                made[entity] = {"id": column}
        return {**given, **made}

    @model_validator(mode="after")
    def _parts_fit(self) -> "Schema":
        interactions, split = self.interactions, self.split
        if interactions is None:
            if self.corpus is None:
                raise ValueError("holds neither interactions nor a corpus; one is needed")
            if self.users or self.items or self.split:
                raise ValueError("users, items and split need interactions")
            return self
        for name, entity, key in (("users", self.users, "user"), ("items", self.items, "item")):
            if entity is not None and getattr(interactions, key) is None:
                raise ValueError(f"{name} needs 'interactions.{key}', the column of their ids")
        needs = {"leave_one_out": ("user", "time"), "item_cold": ("item",), "user_cold": ("user",)}
        kind = "" if split is None else split.kind
        for key in needs.get(kind, ()):
            if getattr(interactions, key) is None:
                raise ValueError(f"split: {kind} needs 'interactions.{key}'")
        return self

    def split_rule(self) -> Split:
        """`split`, or the default: leave-one-out by user, by time for logs."""
        if self.split is not None:
            return self.split
        by_user = self.interactions is not None and self.interactions.order == "by_user"
        return Split(kind="leave_one_out" if by_user else "time")


def _without_dots(named: dict[str, T]) -> dict[str, T]:
    # The names become those of torch modules.
    for name in named:
        if "." in name:
            raise ValueError(f"the name '{name}' holds a '.'; allowed: names without one")
    return named


def template_columns(template: str) -> list[str]:
    """The columns of a template, in their order."""
    return [column for _, column in template_parts(template) if column]


def _template(template: str) -> str:
    if not template_columns(template):
        raise ValueError(f"the template '{template}' names no {{column}}")
    return template


def template_parts(template: str) -> list[tuple[str, str]]:
    """Split "{title} ({year})" into (literal before, column), the last column being ""."""
    parts = []
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"template '{template}': {error}") from None
    for literal, column, spec, conversion in parsed:
        if column == "" or spec or conversion:
            raise ValueError(f"template '{template}': a place is a column's plain name, {{column}}")
        parts.append((literal, column or ""))
    return parts
