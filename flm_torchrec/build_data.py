"""A configuration and its data become what a step is drawn from and made of."""

from functools import partial
from math import gcd

import numpy as np

from flm_torchrec.config import RunConfig
from flm_torchrec.data.cloze import AttributeCloze
from flm_torchrec.data.collate import Collator
from flm_torchrec.data.dataset import TRAIN, VALIDATION, Dataset, Entity
from flm_torchrec.data.domain_sampling import DomainUserSampler, draws_of_users
from flm_torchrec.data.domains import joined
from flm_torchrec.data.id_bags import IdBags
from flm_torchrec.data.negatives import (
    AllItems,
    InBatchItems,
    MixedItems,
    Negatives,
    NoItems,
    PopularItems,
)
from flm_torchrec.data.prepare import prepare
from flm_torchrec.data.sampling import (
    LogSampler,
    Sequences,
    UserSampler,
    histories,
    sequences,
    visits,
)
from flm_torchrec.data.schema import NONE
from flm_torchrec.data.text import Texts
from flm_torchrec.data.told import always_labels
from flm_torchrec.errors import UserError

# Consecutive rows of a log that stay together where negatives are what was shown beside.
_RUN = 64


def open_data(config: RunConfig) -> Dataset:
    """The data that `data.path` or `data.domains` name, prepared."""
    data = config.data
    if data.path is not None:
        return prepare(data.path)
    folders = {name: prepare(folder) for name, folder in data.domains.items()}
    return joined(folders, shared_heads=data.shared_heads)


def window_of(config: RunConfig, dataset: Dataset) -> int:
    """Events of a user that the model reads; 0 where the data has no history."""
    schema = dataset.schema.interactions
    return 0 if schema is None or schema.history == NONE else config.data.window


def any_order(config: RunConfig, dataset: Dataset) -> bool:
    """Does an edge see all other events of its user, whenever they were?"""
    return config.views.history.kind == "set" and window_of(config, dataset) > 0


def check_shares(config: RunConfig, dataset: Dataset, world_size: int) -> None:
    """Raise UserError where `world_size` ranks can't share a training step equally."""
    mlm, text, schema = config.tasks.mlm, config.views.text, dataset.schema.interactions
    cloze, clm, align = config.tasks.cloze, config.tasks.clm, config.tasks.align
    totals = {
        "views.text.rows": text.rows if text else 0,
        "tasks.mlm.texts": mlm.texts if mlm else 0,
        "tasks.align.items": align.items if align else 0,
        "tasks.align.edges": align.edges if align else 0,
        "tasks.clm.texts": clm.texts if clm else 0,
        "tasks.cloze.items": cloze.items if cloze else 0,
    }
    if schema is not None:
        by_user = schema.order == "by_user"
        totals["data.users" if by_user else "data.rows"] = (
            config.data.users if by_user else config.data.rows
        )
    for name, total in totals.items():
        if total % world_size:
            raise UserError(
                f"{name}: {total} can't be served by {world_size} ranks; "
                f"allowed: multiples of {world_size}"
            )
    # What was shown at once must not be torn apart.
    run, rows = run_of(config, dataset), config.data.rows
    is_logged = schema is not None and schema.negatives == "logged"
    if is_logged and (run < min(rows, _RUN) or rows // world_size % run):
        raise UserError(
            f"data.rows: {rows}; with negatives: logged each of {world_size} ranks reads runs of "
            f"{_RUN} rows; allowed: multiples of {_RUN * world_size}"
        )


def run_of(config: RunConfig, dataset: Dataset) -> int:
    """Consecutive rows of a log that stay together."""
    schema = dataset.schema.interactions
    is_logged = schema is not None and schema.negatives == "logged"
    return gcd(_RUN, config.data.rows) if is_logged else 1


def build_sampler(config: RunConfig, dataset: Dataset) -> UserSampler | LogSampler | None:
    """What a step draws from training; None where the data is a corpus alone."""
    schema, data, interactions = dataset.schema.interactions, config.data, dataset.interactions
    if schema is None:
        return None
    if schema.order == "by_user":
        if data.window == 0:
            raise UserError("data.window: 0; order: by_user reads histories; allowed: 1 or more")
        seqs = sequences(interactions, before_part=VALIDATION)
        num_users = int((np.diff(seqs.offsets) > 0).sum())
        if data.users > num_users:
            raise UserError(f"data.users: {data.users}; the data has {num_users} users to train on")
        return _user_sampler(config, dataset, seqs)
    if data.temperature != 1:
        raise UserError(
            f"data.temperature: {data.temperature}; with order: by_log domains come as often as "
            "their rows; allowed: 1.0, or data with order: by_user"
        )
    for name, usual in (("shuffle_ties", False), ("ahead", 1), ("hide_users", 0.0)):
        if getattr(data, name) != usual:
            raise UserError(
                f"data.{name}: {getattr(data, name)}; it is of windows, which order: by_log has "
                f"none of; allowed: {usual}, or data with order: by_user"
            )
    rows = np.flatnonzero(interactions.part == TRAIN)
    if data.rows > len(rows):
        raise UserError(
            f"data.rows: {data.rows}; the data has {len(rows)} interactions to train on; "
            f"allowed: at most {len(rows)}"
        )
    return LogSampler(rows, batch=data.rows, run=run_of(config, dataset), seed=config.train.seed)


def _user_sampler(config: RunConfig, dataset: Dataset, seqs: Sequences) -> UserSampler:
    data, domains, sampler = config.data, dataset.domains, UserSampler
    if domains is not None and len(domains.names) > 1:
        sampler = partial(DomainUserSampler, domain=domains.users, temperature=data.temperature)
    return sampler(
        seqs,
        users=data.users,
        window=data.window,
        reverse=data.reverse,
        shuffle_ties=data.shuffle_ties,
        ahead=data.ahead,
        hide_users=data.hide_users,
        seed=config.train.seed,
    )


def build_negatives(config: RunConfig, dataset: Dataset) -> Negatives:
    """What every edge is scored against."""
    schema, data = dataset.schema.interactions, config.data
    tasks = config.tasks
    # A label that holds for every interaction is learned from sampled ones beside them.
    is_read = (
        tasks.rank is not None
        or tasks.item_cloze is not None
        or (tasks.order is not None and tasks.order.by == "sampled")
        or (tasks.heads is not None and bool(always_labels(dataset)))
    )
    if schema is not None and schema.negatives == "logged" and data.negatives != "all":
        raise UserError(
            f"data.negatives: {data.negatives}; the schema says negatives: logged, so none are "
            "drawn; allowed: all"
        )
    if dataset.items is None or schema is None or schema.negatives == "logged" or not is_read:
        return NoItems()
    if data.negatives == "all":
        return AllItems(num_items=len(dataset.items.ids))
    interactions, num_items = dataset.interactions, len(dataset.items.ids)
    is_met = (interactions.part == TRAIN) & interactions.positive
    item, count = interactions.item[is_met], data.negatives
    num_in_batch = {"popular": 0, "mixed": count // 2, "in_batch": count}[data.negative_source]
    popular = PopularItems(
        np.bincount(item, minlength=num_items),
        count=count - num_in_batch,
        power=data.negative_power,
    )
    if not num_in_batch:
        return popular
    shown = np.bincount(item, shown_share(config, dataset)[is_met], minlength=num_items)
    in_batch = InBatchItems(shown, count=num_in_batch)
    return in_batch if num_in_batch == count else MixedItems(popular, in_batch)


def shown_share(config: RunConfig, dataset: Dataset) -> np.ndarray:
    """(n,) how often an epoch shows each interaction of training: with order: by_user, those of a
    user with more of them than a window as often as its random windows hold them on average."""
    interactions, schema = dataset.interactions, dataset.schema.interactions
    share = (interactions.part == TRAIN).astype(np.float64)
    if schema is None or schema.order != "by_user":
        return share
    seqs = sequences(interactions, before_part=VALIDATION)
    window, domains = config.data.window, dataset.domains
    total = np.diff(seqs.offsets)
    shown = visits(seqs, window) * np.minimum(total, window) / np.maximum(total, 1)
    if domains is not None and len(domains.names) > 1:
        shown *= draws_of_users(seqs, domains.users, config.data.temperature, window)
    return share * shown[interactions.user]


def items_to_hide_of(dataset: Dataset, attribute: str) -> Entity:
    """The items; UserError where they have no such attribute that can be hidden and told."""
    items = dataset.schema.items
    features = {} if items is None else items.features
    allowed = [
        name
        for name, feature in features.items()
        if feature.kind in ("categorical", "multi") and feature.hash is None
    ]
    if dataset.items is None or attribute not in allowed:
        raise UserError(
            f"tasks.cloze.attribute: {attribute!r}; allowed: a categorical or multi feature of the "
            f"items that is not hashed: {allowed}"
        )
    if not dataset.items.columns[attribute].values.any():
        raise UserError(f"tasks.cloze.attribute: {attribute!r} is known of no item")
    return dataset.items


def id_bags(config: RunConfig, dataset: Dataset) -> IdBags | None:
    """What a linear path of two tables reads; None without one."""
    linear = config.views.linear
    if linear is None or not linear.rank or dataset.items is None:
        return None
    return IdBags(dataset.items, dataset.interactions.time)


def build_collator(
    config: RunConfig, dataset: Dataset, *, texts: Texts | None, rank: int, world_size: int
) -> Collator:
    """Batches of one rank."""
    mlm, clm, align = config.tasks.mlm, config.tasks.clm, config.tasks.align
    text, language = config.views.text, mlm or clm
    cloze = config.tasks.cloze
    if language is not None and (texts is None or not len(texts.masked_pool)):
        raise UserError(f"tasks.{'mlm' if mlm else 'clm'}: the data has no text to train on")
    # A corpus is only masked.
    rows = text.rows if text is not None and texts is not None and texts.num_names else 0
    if texts is not None and rows:
        num_texts = int((texts.table.length[: texts.num_names * texts.num_items] > 0).sum())
        if rows > num_texts * world_size:
            raise UserError(
                f"views.text.rows: {rows}; the data has {num_texts} texts of items for each of "
                f"{world_size} ranks"
            )
    hidden = None
    if cloze is not None:
        items = items_to_hide_of(dataset, cloze.attribute)
        hidden = AttributeCloze(items, cloze.attribute, count=cloze.items // world_size)
    return Collator(
        dataset,
        histories(dataset.interactions, before_part=VALIDATION),
        window=window_of(config, dataset),
        negatives=build_negatives(config, dataset),
        text=texts,
        text_rows=rows // world_size,
        masked_rows=language.texts // world_size if language else 0,
        aligned_rows=align.items // world_size if align else 0,
        aligned_edges=align.edges // world_size if align else 0,
        cloze=hidden,
        hidden_share=config.tasks.item_cloze.share if config.tasks.item_cloze else 0.0,
        any_order=any_order(config, dataset),
        id_bags=id_bags(config, dataset),
        rank=rank,
        world_size=world_size,
        seed=config.train.seed,
    )
