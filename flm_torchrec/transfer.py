"""What a run may take over from one on other data: what its tables and the places of its inputs
stand for is kept with its checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flm_torchrec.config import RunConfig
from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.schema import Feature
from flm_torchrec.errors import UserError


def origin(config: RunConfig, dataset: Dataset) -> dict[str, Any]:
    """What a checkpoint tells of the data it was trained on."""
    domains = dataset.domains
    datasets = {} if domains is None else dict(zip(domains.names, domains.datasets, strict=True))
    return {
        "fingerprint": dataset.fingerprint,
        "domains": {name: part.fingerprint for name, part in datasets.items()},
        "places": places(config, dataset),
    }


def places(config: RunConfig, dataset: Dataset) -> dict[str, list[str]]:
    """By the beginning of parameters' names, what the places along their sides stand for. Those of
    other names stand for the same in all data, or are tables, which are named by their domain."""
    schema, labels = dataset.schema, list(dataset.interactions.labels)
    users = schema.users.features if schema.users else {}
    items = schema.items.features if schema.items else {}
    context = schema.interactions.context if schema.interactions else {}
    texts = list(dataset.items.text) if dataset.items and config.views.text else []
    vectors = list(dataset.items.vectors) if dataset.items else []
    features = [name for part in (dataset.users, dataset.items) if part for name in part.columns]
    seen = [*features, *users, *items, *context]
    biased = config.tasks.heads.biases if config.tasks.heads else []
    cloze = config.tasks.cloze
    heads = "objective.tasks.heads"
    return {
        "flm.user_view.numbers": _numbers(users),
        "flm.item_view.numbers": _numbers(items),
        "flm.text_view.projections": texts,
        "flm.vector_views": vectors,
        "flm.fusion": [*texts, *vectors],
        "flm.history.event": labels,
        f"{heads}.edge_input": seen,
        f"{heads}.bottom": [*seen, *labels],
        f"{heads}.adapters": labels,
        **{
            f"{heads}.heads.{name}_head": [str(level) for level in dataset.levels.get(name, [])]
            + (seen if name in biased else [])
            for name in labels
        },
        "objective.tasks.cloze": [cloze.attribute] if cloze else [],
    }


def check_origin(
    path: Path, known: Mapping[str, Any], dataset: Dataset, *, folder: str, other: bool
) -> None:
    """Raise UserError unless the checkpoint at `path`, of which `known` is told, was trained on
    this data: rows of other data would be other users and items.

    With `other` it may also be data that this has grown from, or those of other domains: each
    domain has tables of its own, so those of the domains that both have must be of the same data.
    """
    trained_on, domains = known.get("fingerprint"), dataset.domains
    if trained_on == dataset.fingerprint or (other and trained_on in dataset.grown_from):
        return
    held = known.get("domains") or {}
    if not other or domains is None or not held:
        raise UserError(
            f"checkpoint {path}: was trained on data {trained_on}, {folder} holds "
            f"{dataset.fingerprint}; allowed: the data as it was when prepared"
        )
    for name, part in zip(domains.names, domains.datasets, strict=True):
        if name in held and held[name] not in (part.fingerprint, *part.grown_from):
            raise UserError(
                f"checkpoint {path}: was trained on data {held[name]} of the domain {name}, whose "
                f"folder holds {part.fingerprint}; allowed: the data as it was when prepared, or "
                "another name for the domain"
            )


def moved(known: Mapping[str, Any], now: Mapping[str, list[str]]) -> list[str]:
    """The beginnings of the names of parameters whose places stand for something else `now` than
    in the checkpoint of which `known` is told."""
    before = known.get("places")
    return [] if before is None else [name for name in now if now[name] != before.get(name, [])]


def _numbers(features: Mapping[str, Feature]) -> list[str]:
    return [name for name, own in features.items() if own.kind in ("numeric", "vector")]
