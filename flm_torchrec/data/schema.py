"""What the columns of a data folder mean: the typed form of its `schema.yaml`.

Example:
    schema = load_yaml(Path("data/ml-100k/schema.yaml"), Schema)
    print(schema.items.features["genres"].kind)
"""

import re
from string import Formatter
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, field_validator, model_validator

from flm_torchrec.typed_yaml import Strict

T = TypeVar("T")
_COMPARISON = re.compile(
    r"\s*(?P<column>[^<>=!]+?)\s*(?P<operator>>=|<=|==|!=|>|<)\s*(?P<number>\S+)\s*"
)


def _kind_alone(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class Feature(Strict):
    """A column of users or items that enters the model through an embedding table."""

    kind: Literal["categorical", "multi", "numeric"]
    buckets: Annotated[int, Field(ge=2)] | None = None  # numeric: quantile buckets
    separator: Annotated[str, Field(min_length=1)] | None = None  # multi: between the values

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "Feature":
        for name, kind in {"buckets": "numeric", "separator": "multi"}.items():
            if (getattr(self, name) is not None) != (self.kind == kind):
                need = "needs" if self.kind == kind else "has no"
                raise ValueError(f"a feature of kind {self.kind} {need} '{name}'")
        return self


class EntitySchema(Strict):
    """The table of users or of items."""

    id: str
    features: dict[str, Annotated[Feature, BeforeValidator(_kind_alone)]] = {}
    # name -> template over columns, "{title} ({year}). {genres}"
    text: dict[str, str] = {}

    @field_validator("text")
    @classmethod
    def _templates_parse(cls, text: dict[str, str]) -> dict[str, str]:
        for name, template in text.items():
            if not any(column for _, column in template_parts(template)):
                raise ValueError(f"the template of '{name}' names no {{column}}")
        return text

    @field_validator("features")
    @classmethod
    def _features_can_be_modules(cls, features: dict[str, Feature]) -> dict[str, Feature]:
        return _without_dots(features)

    @model_validator(mode="after")
    def _id_is_no_feature(self) -> "EntitySchema":
        if self.id in self.features:
            raise ValueError(f"'{self.id}' is the id, which is a feature anyway: leave it out")
        return self


class Comparison(Strict):
    """A label's derivation: 1 where `column operator number` holds."""

    column: str
    operator: Literal[">=", "<=", "==", "!=", ">", "<"]
    number: float


class Label(Strict):
    """What may come of an interaction."""

    kind: Literal["binary", "ordinal"]
    value: str | None = None  # a comparison, "rating >= 4"; else the column of the label's name

    @model_validator(mode="after")
    def _value_parses(self) -> "Label":
        if self.value is not None and self.kind != "binary":
            raise ValueError(f"a label of kind {self.kind} has no 'value'; only binary ones have")
        self.comparison()
        return self

    def comparison(self) -> Comparison | None:
        """`value`, parsed."""
        if self.value is None:
            return None
        match = _COMPARISON.fullmatch(self.value)
        try:
            return Comparison.model_validate(match and match.groupdict())
        except ValueError:
            raise ValueError(
                f"'{self.value}' is not of the form COLUMN >=|<=|==|!=|>|< NUMBER"
            ) from None


class InteractionSchema(Strict):
    """The table of interactions: who, what, when, and the labels."""

    user: str
    item: str
    time: str
    labels: dict[str, Label] = {}
    repeats: bool = True  # False: a user never meets an item twice

    @field_validator("labels")
    @classmethod
    def _labels_can_be_modules(cls, labels: dict[str, Label]) -> dict[str, Label]:
        return _without_dots(labels)


def _without_dots(named: dict[str, T]) -> dict[str, T]:
    # The names become those of torch modules.
    for name in named:
        if "." in name:
            raise ValueError(f"the name '{name}' holds a '.'; allowed: names without one")
    return named


class Schema(Strict):
    """A data folder."""

    users: EntitySchema
    items: EntitySchema
    interactions: InteractionSchema


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
