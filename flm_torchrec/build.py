"""A configuration becomes objects: the one place, besides the apps, that reads it."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from flm_torchrec.config import RunConfig
from flm_torchrec.data.collate import Collator, ItemText
from flm_torchrec.data.dataset import TRAIN, Column, Dataset
from flm_torchrec.data.negatives import AllItems, PopularItems
from flm_torchrec.data.sampling import Sequences
from flm_torchrec.data.text import TokenTable, held_out_texts
from flm_torchrec.encoder import TextEncoder
from flm_torchrec.errors import UserError
from flm_torchrec.model import FLM
from flm_torchrec.tasks.alignment import Alignment
from flm_torchrec.tasks.heads import BinaryHead, Head, Heads, OrdinalHead
from flm_torchrec.tasks.mlm import MaskedLM
from flm_torchrec.tasks.ranking import Ranking
from flm_torchrec.trainable import FLMTrain, Objective
from flm_torchrec.views.fusion import Fusion, GatedFusion, MeanFusion, WeightedFusion
from flm_torchrec.views.history import CausalHistory
from flm_torchrec.views.sparse import SparseView, embedding_bags
from flm_torchrec.views.text import TextView

FUSIONS: dict[str, type[Fusion]] = {
    "mean": MeanFusion,
    "weighted": WeightedFusion,
    "gated": GatedFusion,
}


def build_flm(config: RunConfig, dataset: Dataset, encoder: TextEncoder | None) -> FLM:
    """The model with its tables on the meta device."""
    views = config.views
    item_features, user_features = dataset.schema.items.features, dataset.schema.users.features

    def sparse(
        prefix: str, columns: Mapping[str, Column], features: Mapping[str, Any]
    ) -> SparseView:
        rows = {name: column.num_embeddings for name, column in columns.items()}
        multi = frozenset(name for name, feature in features.items() if feature.kind == "multi")
        return SparseView(
            embedding_bags(prefix, rows, dim=views.width, multi=multi), dim=views.width
        )

    text_view = encoder and TextView(encoder.model, hidden=encoder.hidden, dim=views.width)
    return FLM(
        user_view=sparse("users", dataset.users.columns, user_features),
        item_view=sparse("items", dataset.items.columns, item_features),
        text_view=text_view,
        fusion=FUSIONS[views.fusion](
            num_views=1 if encoder is None else 2, dim=views.width, view_dropout=views.view_dropout
        ),
        history=CausalHistory(
            views.width,
            window=config.data.window,
            event_width=max(1, len(dataset.interactions.labels)),
            layers=views.history.layers,
            heads=views.history.heads,
            dropout=views.history.dropout,
        ),
    )


def build_heads(config: RunConfig, dataset: Dataset) -> Heads:
    """One head a declared label."""
    tasks = config.tasks.heads
    assert tasks is not None
    labels = dataset.interactions.labels
    if not labels:
        raise UserError("tasks.heads: the data's schema declares no labels (interactions.labels)")
    unknown = sorted(set(tasks.weights) - set(labels))
    if unknown:
        raise UserError(f"tasks.heads.weights.{unknown[0]}: no such label; allowed: {list(labels)}")
    heads: dict[str, Head] = {}
    is_train = dataset.interactions.part == TRAIN
    for name, values in labels.items():
        if name in dataset.levels:
            levels = dataset.levels[name]
            counts = [float((values[is_train] == level).sum()) for level in levels]
            heads[name] = OrdinalHead(tasks.width, levels.tolist(), counts)
        else:
            heads[name] = BinaryHead(tasks.width)
    num_features = len(dataset.users.columns) + len(dataset.items.columns)
    return Heads(
        heads,
        dim=config.views.width,
        feature_width=num_features * config.views.width,
        hidden=tasks.hidden,
        width=tasks.width,
        dropout=tasks.dropout,
    )


def build_objective(config: RunConfig, dataset: Dataset, encoder: TextEncoder | None) -> Objective:
    """The tasks that are on, with their weights."""
    tasks: dict[str, nn.Module] = {}
    weights: dict[str, float] = {}
    if config.tasks.rank is not None:
        tasks["rank"] = Ranking(mask_seen=not dataset.schema.interactions.repeats)
        weights["rank"] = config.tasks.rank.weight
    if config.tasks.align is not None:
        tasks["align"] = Alignment(temperature=config.tasks.align.temperature)
        weights["align"] = config.tasks.align.weight
    if config.tasks.mlm is not None:
        assert encoder is not None
        tasks["mlm"] = MaskedLM(hidden=encoder.hidden, vocabulary=encoder.vocabulary)
        weights["mlm"] = config.tasks.mlm.weight
    if config.tasks.heads is not None:
        taken = sorted({*tasks, "heads"} & set(dataset.interactions.labels))
        if taken:
            raise UserError(
                f"interactions.labels.{taken[0]}: a task is called so; allowed: another name"
            )
        tasks["heads"] = build_heads(config, dataset)
        weights |= {"heads": config.tasks.heads.weight, **config.tasks.heads.weights}
    return Objective(tasks, weights)


def build_model(config: RunConfig, dataset: Dataset, encoder: TextEncoder | None) -> FLMTrain:
    """The model with its objective."""
    return FLMTrain(build_flm(config, dataset, encoder), build_objective(config, dataset, encoder))


def check_shares(config: RunConfig, world_size: int) -> None:
    """Raise UserError where `world_size` ranks can't share a training step equally."""
    mlm, text = config.tasks.mlm, config.views.text
    totals = {
        "data.users": config.data.users,
        "views.text.rows": text.rows if text else 0,
        "tasks.mlm.texts": mlm.texts if mlm else 0,
    }
    for name, total in totals.items():
        if total % world_size:
            raise UserError(
                f"{name}: {total} can't be served by {world_size} ranks; "
                f"allowed: multiples of {world_size}"
            )


def build_collator(
    config: RunConfig,
    dataset: Dataset,
    seqs: Sequences,
    *,
    text: ItemText | None,
    rank: int,
    world_size: int,
) -> Collator:
    """Batches of one rank."""
    num_users = int((np.diff(seqs.offsets) > 0).sum())
    if config.data.users > num_users:
        raise UserError(
            f"data.users: {config.data.users}; the data has {num_users} users to train on"
        )
    mlm, align, rows = config.tasks.mlm, config.tasks.align, config.views.text
    num_texts = 0 if text is None else int((text.table.length > 0).sum())
    if rows and rows.rows > num_texts * world_size:
        raise UserError(
            f"views.text.rows: {rows.rows}; the data has {num_texts} items with text for each of "
            f"{world_size} ranks"
        )
    return Collator(
        dataset,
        seqs,
        window=config.data.window,
        negatives=build_negatives(config, dataset),
        text=text,
        text_rows=rows.rows // world_size if rows else 0,
        masked_rows=mlm.texts // world_size if mlm else 0,
        aligned_rows=align.items if align else 0,
        rank=rank,
        world_size=world_size,
        seed=config.train.seed,
    )


def build_negatives(config: RunConfig, dataset: Dataset) -> AllItems | PopularItems:
    """What every edge is scored against."""
    num_items = len(dataset.items.ids)
    if config.data.negatives == "all":
        return AllItems(num_items=num_items)
    trained = dataset.interactions.item[dataset.interactions.part == TRAIN]
    return PopularItems(
        np.bincount(trained, minlength=num_items),
        count=config.data.negatives,
        power=config.data.negative_power,
    )


def masked_pool(table: TokenTable) -> np.ndarray:
    """The items whose text the masked language model trains on: all but the held-out ones."""
    return np.setdiff1d(np.flatnonzero(table.is_word.any(1)), held_out_texts(table))


def dense_optimizer(
    config: RunConfig, named: Iterable[tuple[str, nn.Parameter]]
) -> torch.optim.AdamW:
    """AdamW over the dense part: no decay on vectors (biases, norms), the text encoder apart."""
    dense = config.train.dense
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        lr = dense.text_lr if ".text_view.encoder." in f".{name}" else dense.lr
        is_bias = parameter.ndim < 2 or name.endswith("bias")
        decay = 0.0 if is_bias else dense.weight_decay
        groups.setdefault((lr, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": lr, "weight_decay": decay}
            for (lr, decay), parameters in groups.items()
        ],
        betas=(0.9, 0.98),
        fused=True,
    )
