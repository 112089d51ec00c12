"""Several data sets as one: users, items and interactions of one domain after those of another.

Each domain keeps its vocabularies, and so its tables: a feature is a column of its own, which is
empty in the rows of other domains. Texts of one name are one text, and labels one label.

Example:
    dataset = joined({"movies": prepare("data/ml-100k"), "music": prepare("data/lastfm")})
    print(dataset.items.columns.keys(), dataset.domains.items)
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flm_torchrec.data.dataset import TRAIN, Column, Dataset, Domains, Entity, Interactions
from flm_torchrec.data.domain_schema import domain_name, joined_schema, label_name
from flm_torchrec.data.sampling import Rows


def joined(datasets: Mapping[str, Dataset], *, shared_heads: bool = True) -> Dataset:
    """The data sets by the names of their domains as one; UserError where they don't go together.

    Row 0 stays the unknown user and item. Without `shared_heads` a label is each domain's own.
    """
    parts = tuple(datasets.values())
    schema = joined_schema(
        {domain: dataset.schema for domain, dataset in datasets.items()}, shared_heads=shared_heads
    )
    labels = [
        {
            label_name(domain, own, shared_heads=shared_heads): own
            for own in part.interactions.labels
        }
        for domain, part in datasets.items()
    ]
    met = _interactions(datasets, labels)
    numbers = np.arange(1, 1 + len(parts))
    domain = numbers.repeat([len(part.interactions.user) for part in parts])
    told = [*((domain, part.fingerprint) for domain, part in datasets.items()), shared_heads]
    return Dataset(
        schema=schema,
        users=_entity({name: part.users for name, part in datasets.items() if part.users}),
        items=_entity({name: part.items for name, part in datasets.items() if part.items}),
        interactions=met,
        levels=_levels(parts, labels),
        moments=_moments(parts, labels, met),
        corpus=[text for part in parts for text in part.corpus],
        fingerprint=hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16],
        domains=Domains(
            names=tuple(datasets),
            datasets=parts,
            users=_numbers([_num_known(part.users) for part in parts]),
            items=_numbers([_num_known(part.items) for part in parts]),
            interactions=domain,
        ),
    )


def with_texts(
    dataset: Dataset, number: int, texts: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """The items' texts with others (rows of its own,) for those of the domain with a number."""
    items, domains = dataset.items, dataset.domains
    assert items is not None
    assert domains is not None
    every = {name: list(known) for name, known in items.text.items()}
    for name, own in texts.items():
        for row, text in zip(np.flatnonzero(domains.items == number), own[1:], strict=True):
            every[name][row] = text
    return every


def _num_known(entity: Entity | None) -> int:
    return 0 if entity is None else len(entity.ids) - 1


def _numbers(counts: Sequence[int]) -> Rows:
    """(1 + all,) the number of each row's domain, from 1; of the unknown row 0."""
    return np.append(0, np.arange(1, 1 + len(counts)).repeat(counts))


def _entity(entities: Mapping[str, Entity]) -> Entity | None:
    if not entities:
        return None
    total = sum(map(_num_known, entities.values()))
    ids: dict[str, Column] = {}
    features: dict[str, Column] = {}
    vectors: dict[str, NDArray[np.float32]] = {}
    numbers, names, before = [], {}, 0
    for domain, entity in entities.items():
        around = before, total - before - _num_known(entity)
        for place, (name, column) in enumerate(entity.columns.items()):
            own = ids if place < entity.num_ids else features
            own[domain_name(domain, name)] = _among(column, *around, unknown=1)
        for name, vector in entity.vectors.items():
            vectors[domain_name(domain, name)] = _padded(vector, *around, unknown=1)
        numbers.append(_padded(entity.numbers, *around, unknown=1))
        names |= dict.fromkeys(entity.text)
        before += _num_known(entity)
    every = tuple(entities.values())
    return Entity(
        ids=np.concatenate([every[0].ids[:1], *(entity.ids[1:] for entity in every)]),
        columns=ids | features,
        numbers=np.concatenate(numbers, axis=1),
        vectors=vectors,
        text={
            name: ["", *(text for entity in every for text in _texts(entity, name)[1:])]
            for name in names
        },
        num_ids=len(ids),
    )


def _texts(entity: Entity, name: str) -> Sequence[str]:
    return entity.text.get(name) or [""] * len(entity.ids)


def _among(column: Column, before: int, after: int, *, unknown: int) -> Column:
    """A column with rows of other domains before and after its own but for the first `unknown`
    ones: their bags are empty."""
    if not before and not after:
        return column
    length = _padded(np.diff(column.bounds), before, after, unknown=unknown)
    return Column(
        values=column.values[: int(length.sum())],
        offsets=np.append(0, length.cumsum()),
        num_embeddings=column.num_embeddings,
    )


def _padded(rows: NDArray, before: int, after: int, *, unknown: int) -> NDArray:
    """rows (unknown + n, ...) with zeros for the rows of other domains."""
    sizes = [before, after]
    first, last = (np.zeros((size, *rows.shape[1:]), dtype=rows.dtype) for size in sizes)
    return np.concatenate([rows[:unknown], first, rows[unknown:], last])


def _shifted(rows: Sequence[NDArray[np.integer]], counts: Sequence[int]) -> Rows:
    """Rows of each domain's own users or items, of which it knows `counts`, as rows of all."""
    before = np.cumsum([0, *counts[:-1]])
    return np.concatenate(
        [np.where(own > 0, own + first, 0) for own, first in zip(rows, before, strict=True)]
    )


def _interactions(
    datasets: Mapping[str, Dataset], labels: Sequence[Mapping[str, str]]
) -> Interactions:
    """One after another; labels: of each domain, its own by those of all."""
    parts = tuple(datasets.values())
    logs = [part.interactions for part in parts]
    sizes = [len(log.user) for log in logs]
    first = np.cumsum([0, *sizes])
    context: dict[str, Column] = {}
    numbers = []
    for place, (domain, log) in enumerate(zip(datasets, logs, strict=True)):
        around = int(first[place]), int(first[-1] - first[place + 1])
        for name, column in log.context.items():
            context[domain_name(domain, name)] = _among(column, *around, unknown=0)
        numbers.append(_padded(log.numbers, *around, unknown=0))

    def every(name: str) -> NDArray:
        return np.concatenate([getattr(log, name) for log in logs])

    user_counts, item_counts = (
        [_num_known(entity) for entity in entities]
        for entities in zip(*((part.users, part.items) for part in parts), strict=True)
    )
    return Interactions(
        user=_shifted([log.user for log in logs], user_counts),
        item=_shifted([log.item for log in logs], item_counts),
        time=every("time"),
        source_row=every("source_row"),
        part=every("part"),
        positive=every("positive"),
        labels=_labels(logs, labels),
        context=context,
        numbers=np.concatenate(numbers, axis=1),
        events=np.concatenate([log.events + at for log, at in zip(logs, first[:-1], strict=True)]),
        user_offsets=_offsets(logs),
        before=every("before"),
    )


def _offsets(logs: Sequence[Interactions]) -> Rows:
    """(1 + user rows,) of the events; the unknown user has none."""
    num_events = np.concatenate([np.diff(log.user_offsets)[1:] for log in logs])
    return np.concatenate([[0, 0], num_events.cumsum()])


def _labels(
    logs: Sequence[Interactions], labels: Sequence[Mapping[str, str]]
) -> dict[str, NDArray[np.float32]]:
    """(n,) each, missing where a domain lacks it."""
    every = list(zip(logs, labels, strict=True))
    return {
        name: np.concatenate(
            [
                log.labels[own[name]]
                if name in own
                else np.full(len(log.user), np.nan, dtype=np.float32)
                for log, own in every
            ]
        )
        for name in dict.fromkeys(name for own in labels for name in own)
    }


def _levels(
    parts: Sequence[Dataset], labels: Sequence[Mapping[str, str]]
) -> dict[str, NDArray[np.float32]]:
    levels: dict[str, list[NDArray[np.float32]]] = {}
    for part, own in zip(parts, labels, strict=True):
        for name, label in own.items():
            if label in part.levels:
                levels.setdefault(name, []).append(part.levels[label])
    return {name: np.unique(np.concatenate(known)) for name, known in levels.items()}


def _moments(
    parts: Sequence[Dataset], labels: Sequence[Mapping[str, str]], met: Interactions
) -> dict[str, tuple[float, float]]:
    moments: dict[str, list[tuple[float, float]]] = {}
    for part, own in zip(parts, labels, strict=True):
        for name, label in own.items():
            if label in part.moments:
                moments.setdefault(name, []).append(part.moments[label])
    return {
        name: known[0] if len(known) == 1 else _moments_of(met.labels[name][met.part == TRAIN])
        for name, known in moments.items()
    }


def _moments_of(values: NDArray[np.float32]) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    return float(known.mean(dtype=np.float64)), float(known.std(dtype=np.float64))
