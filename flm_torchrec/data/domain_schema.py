"""What several data folders mean together: one `Schema` for the data sets of all domains."""

from collections.abc import Callable, Mapping

from flm_torchrec.data.schema import (
    ALWAYS,
    NONE,
    EntitySchema,
    Feature,
    InteractionSchema,
    ItemSchema,
    Label,
    Schema,
)
from flm_torchrec.errors import UserError


def domain_name(domain: str, name: str) -> str:
    """What a feature (a vector, a label of one head a domain) is called among all domains'."""
    return f"{domain}_{name}"


def label_name(domain: str, label: str, *, shared_heads: bool) -> str:
    """What a label is called among all domains': as it is, if those of one name share a head."""
    return label if shared_heads else domain_name(domain, label)


def joined_schema(schemas: Mapping[str, Schema], *, shared_heads: bool) -> Schema:
    """The schema of all domains, by their names; UserError where they can't be one."""
    every = {domain: _interactions(domain, schema) for domain, schema in schemas.items()}
    for what, told in _AGREED.items():
        _agree(what, {domain: told(schema) for domain, schema in schemas.items()})
    first = next(iter(every.values()))
    users = {domain: schema.users for domain, schema in schemas.items() if schema.users}
    items = {domain: schema.items for domain, schema in schemas.items() if schema.items}
    texts = {
        name: text for schema in reversed(items.values()) for name, text in schema.text.items()
    }
    return Schema(
        users=EntitySchema(id=_id(users), features=_features(users)) if users else None,
        items=ItemSchema(id=_id(items), features=_features(items), text=texts) if items else None,
        interactions=InteractionSchema(
            **first.model_dump(exclude={"context", "labels"}),
            context={
                domain_name(domain, name): feature
                for domain, interactions in every.items()
                for name, feature in interactions.context.items()
            },
            labels=_labels(every, shared_heads=shared_heads),
        ),
        split=next(iter(schemas.values())).split_rule(),
    )


def _interactions(domain: str, schema: Schema) -> InteractionSchema:
    if schema.interactions is None:
        raise UserError(
            f"data.domains.{domain}: its data are a corpus alone; allowed: data with interactions"
        )
    return schema.interactions


def _of_log(told: Callable[[InteractionSchema], object]) -> Callable[[Schema], object]:
    return lambda schema: schema.interactions and told(schema.interactions)


# What the domains must have in common.
_AGREED: dict[str, Callable[[Schema], object]] = {
    "users": lambda schema: "some" if schema.users else NONE,
    "items": lambda schema: "some" if schema.items else NONE,
    "interactions.order": _of_log(lambda log: log.order),
    "interactions.negatives": _of_log(lambda log: log.negatives),
    "interactions.repeats": _of_log(lambda log: str(log.repeats).lower()),
    "interactions.history": _of_log(lambda log: NONE if log.history == NONE else "some"),
    "split": lambda schema: _split(schema.split_rule().kind),
}


def _split(kind: str) -> str:
    """As far as evaluation minds: whether order matters, and whether whole items are held out."""
    return kind if kind in ("random", "item_cold") else "neither random nor item_cold"


def _agree(what: str, told: Mapping[str, object]) -> None:
    first = next(iter(told))
    for domain, value in told.items():
        if value != told[first]:
            raise UserError(
                f"data.domains: {what} is {told[first]} in {first} and {value} in {domain}; "
                "allowed: the same in all domains"
            )


def _id(entities: Mapping[str, EntitySchema]) -> str:
    domain, entity = next(iter(entities.items()))
    return domain_name(domain, entity.id)


def _features(entities: Mapping[str, EntitySchema]) -> dict[str, Feature]:
    return {
        domain_name(domain, name): feature
        for domain, entity in entities.items()
        for name, feature in entity.features.items()
    }


def _labels(every: Mapping[str, InteractionSchema], *, shared_heads: bool) -> dict[str, Label]:
    labels: dict[str, Label] = {}
    owner: dict[str, str] = {}
    for domain, interactions in every.items():
        for name, label in interactions.labels.items():
            key = label_name(domain, name, shared_heads=shared_heads)
            known = labels.setdefault(key, label)
            owner.setdefault(key, domain)
            if _kind(known) != _kind(label):
                raise UserError(
                    f"data.domains: label '{name}' is {_kind(known)} in {owner[key]} and "
                    f"{_kind(label)} in {domain}; allowed: one kind, or data.shared_heads: false"
                )
            if known != label:
                # Said in other words each: what is left is the kind.
                labels[key] = Label(kind=label.kind)
    return labels


def _kind(label: Label) -> str:
    return f"{label.kind} ({ALWAYS})" if label.value == ALWAYS else label.kind
