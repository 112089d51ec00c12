"""A configuration and its data become what a step is drawn from and made of."""

from math import gcd

import numpy as np

from flm_torchrec.config import RunConfig
from flm_torchrec.data.collate import Collator
from flm_torchrec.data.dataset import TRAIN, VALIDATION, Dataset
from flm_torchrec.data.negatives import (
    AllItems,
    InBatchItems,
    MixedItems,
    Negatives,
    NoItems,
    PopularItems,
)
from flm_torchrec.data.sampling import LogSampler, UserSampler, histories, sequences
from flm_torchrec.data.schema import NONE
from flm_torchrec.data.text import Texts
from flm_torchrec.data.told import always_labels
from flm_torchrec.errors import UserError

# Consecutive rows of a log that stay together where negatives are what was shown beside.
_RUN = 64


def window_of(config: RunConfig, dataset: Dataset) -> int:
    """Events of a user that the model reads; 0 where the data has no history."""
    schema = dataset.schema.interactions
    return 0 if schema is None or schema.history == NONE else config.data.window


def check_shares(config: RunConfig, dataset: Dataset, world_size: int) -> None:
    """Raise UserError where `world_size` ranks can't share a training step equally."""
    mlm, text, schema = config.tasks.mlm, config.views.text, dataset.schema.interactions
    totals = {
        "views.text.rows": text.rows if text else 0,
        "tasks.mlm.texts": mlm.texts if mlm else 0,
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
        return UserSampler(
            seqs,
            users=data.users,
            window=data.window,
            reverse=data.reverse,
            seed=config.train.seed,
        )
    rows = np.flatnonzero(interactions.part == TRAIN)
    run = gcd(_RUN, data.rows) if schema.negatives == "logged" else 1
    most = (len(rows) - run + 1) // run * run
    if data.rows > most:
        raise UserError(
            f"data.rows: {data.rows}; the data has {len(rows)} interactions to train on; "
            f"allowed: at most {most}"
        )
    return LogSampler(rows, batch=data.rows, run=run, seed=config.train.seed)


def build_negatives(config: RunConfig, dataset: Dataset) -> Negatives:
    """What every edge is scored against."""
    schema, data = dataset.schema.interactions, config.data
    # A label that holds for every interaction is learned from sampled ones beside them.
    is_read = config.tasks.rank is not None or (
        config.tasks.heads is not None and bool(always_labels(dataset))
    )
    if dataset.items is None or schema is None or schema.negatives == "logged" or not is_read:
        return NoItems()
    num_items = len(dataset.items.ids)
    if data.negatives == "all":
        return AllItems(num_items=num_items)
    interactions, count = dataset.interactions, data.negatives
    is_trained = (interactions.part == TRAIN) & interactions.positive
    counts = np.bincount(interactions.item[is_trained], minlength=num_items)
    if data.negative_source == "in_batch":
        return InBatchItems(counts, count=count)
    if data.negative_source == "mixed":
        return MixedItems(counts, count=count, power=data.negative_power)
    return PopularItems(counts, count=count, power=data.negative_power)


def build_collator(
    config: RunConfig, dataset: Dataset, *, texts: Texts | None, rank: int, world_size: int
) -> Collator:
    """Batches of one rank."""
    mlm, align, text = config.tasks.mlm, config.tasks.align, config.views.text
    if mlm is not None and (texts is None or not len(texts.masked_pool)):
        raise UserError("tasks.mlm: the data has no text to train on")
    # A corpus is only masked.
    rows = text.rows if text is not None and texts is not None and texts.num_names else 0
    if texts is not None and rows:
        num_texts = int((texts.table.length[: texts.num_names * texts.num_items] > 0).sum())
        if rows > num_texts * world_size:
            raise UserError(
                f"views.text.rows: {rows}; the data has {num_texts} texts of items for each of "
                f"{world_size} ranks"
            )
    return Collator(
        dataset,
        histories(dataset.interactions, before_part=VALIDATION),
        window=window_of(config, dataset),
        negatives=build_negatives(config, dataset),
        text=texts,
        text_rows=rows // world_size,
        masked_rows=mlm.texts // world_size if mlm else 0,
        aligned_rows=align.items if align else 0,
        rank=rank,
        world_size=world_size,
        seed=config.train.seed,
    )
