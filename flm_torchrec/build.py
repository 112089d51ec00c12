"""A configuration and its data become the model, its tasks and its dense optimizer."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from flm_torchrec.build_data import window_of
from flm_torchrec.config import RunConfig
from flm_torchrec.data.dataset import TRAIN, Column, Dataset
from flm_torchrec.data.told import always_labels
from flm_torchrec.encoder import TextEncoder
from flm_torchrec.errors import UserError
from flm_torchrec.model import FLM
from flm_torchrec.tasks.alignment import Alignment
from flm_torchrec.tasks.cross import FM, DCNv2
from flm_torchrec.tasks.heads import (
    BinaryHead,
    Head,
    Heads,
    Inputs,
    MulticlassHead,
    OrdinalHead,
    RealHead,
)
from flm_torchrec.tasks.mlm import MaskedLM
from flm_torchrec.tasks.ranking import LoggedRanking, Ranking
from flm_torchrec.trainable import FLMTrain, Objective
from flm_torchrec.views.fusion import Fusion, GatedFusion, MeanFusion, WeightedFusion
from flm_torchrec.views.history import CausalHistory
from flm_torchrec.views.sparse import SparseView, embedding_bags
from flm_torchrec.views.text import TextView
from flm_torchrec.views.vector import VectorView

FUSIONS: dict[str, type[Fusion]] = {
    "mean": MeanFusion,
    "weighted": WeightedFusion,
    "gated": GatedFusion,
}


def build_flm(config: RunConfig, dataset: Dataset, encoder: TextEncoder | None) -> FLM:
    """The model with its tables on the meta device."""
    views, users, items = config.views, dataset.users, dataset.items
    context, window = dataset.interactions.context, window_of(config, dataset)

    def sparse(prefix: str, columns: Mapping[str, Column], num_numbers: int) -> SparseView:
        rows = {name: column.num_embeddings for name, column in columns.items()}
        multi = frozenset(name for name in columns if columns[name].offsets is not None)
        bags = embedding_bags(prefix, rows, dim=views.width, multi=multi)
        return SparseView(bags, dim=views.width, num_numbers=num_numbers)

    texts = () if items is None else tuple(items.text)
    vectors = {} if items is None else items.vectors
    names = ("features", *texts, *vectors)
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice:
        raise UserError(f"items: two views are called '{twice[0]}'; allowed: names of their own")
    vector_views = {
        name: VectorView(torch.from_numpy(values), dim=views.width)
        for name, values in vectors.items()
    }
    num_views = 1 + (0 if encoder is None else len(texts)) + len(vectors)
    fusion = FUSIONS[views.fusion]
    return FLM(
        user_view=users and sparse("users", users.columns, users.num_numbers),
        item_view=items and sparse("items", items.columns, items.numbers.shape[1]),
        context_view=sparse("context", context, 0) if context else None,
        text_view=encoder
        and TextView(encoder.model, hidden=encoder.hidden, dim=views.width, names=texts),
        vector_views=vector_views,
        fusion=items
        and fusion(num_views=num_views, dim=views.width, view_dropout=views.view_dropout),
        history=CausalHistory(
            views.width,
            window=window,
            event_width=max(1, len(dataset.interactions.labels)),
            layers=views.history.layers,
            heads=views.history.heads,
            dropout=views.history.dropout,
        )
        if users is not None and window
        else None,
    )


def build_heads(config: RunConfig, dataset: Dataset) -> Heads:
    """One head a declared label."""
    tasks, interactions = config.tasks.heads, dataset.interactions
    assert tasks is not None
    if not interactions.labels:
        raise UserError("tasks.heads: the data's schema declares no labels (interactions.labels)")
    unknown = sorted(set(tasks.weights) - set(interactions.labels))
    if unknown:
        raise UserError(
            f"tasks.heads.weights.{unknown[0]}: no such label; allowed: {list(interactions.labels)}"
        )
    schema = dataset.schema.interactions
    assert schema is not None
    for place in always_labels(dataset):
        if dataset.items is None or schema.negatives == "logged":
            lacks = "there are no items" if dataset.items is None else "negatives are logged"
            raise UserError(
                f"interactions.labels.{list(schema.labels)[place]}: always holds, so its head "
                f"learns from sampled items, but {lacks}; allowed: a column or a predicate"
            )
    entities = [entity for entity in (dataset.users, dataset.items) if entity is not None]
    columns = [interactions.context, *(entity.columns for entity in entities)]
    num_numbers = interactions.numbers.shape[1]
    num_numbers += 0 if dataset.users is None else dataset.users.num_numbers
    num_numbers += 0 if dataset.items is None else dataset.items.numbers.shape[1]
    inputs = Inputs(
        dim=config.views.width,
        has_user=dataset.users is not None,
        has_item=dataset.items is not None,
        num_features=sum(map(len, columns)),
        num_numbers=num_numbers,
    )
    cross = {
        "none": lambda: None,
        "fm": lambda: FM(num_vectors=inputs.num_vectors),
        "dcn": lambda: DCNv2(num_vectors=inputs.num_vectors, dim=inputs.dim),
    }
    return Heads(
        {name: build_head(dataset, name, tasks.width) for name in interactions.labels},
        inputs,
        cross=cross[tasks.cross](),
        hidden=tasks.hidden,
        width=tasks.width,
        dropout=tasks.dropout,
    )


def build_head(dataset: Dataset, label: str, width: int) -> Head:
    """The head of a label's kind, fitted on training."""
    schema, interactions = dataset.schema.interactions, dataset.interactions
    assert schema is not None
    kind = schema.labels[label].kind
    if kind == "binary":
        return BinaryHead(width)
    if kind == "real":
        mean, std = dataset.moments[label]
        return RealHead(width, mean=mean, std=max(std, 1e-6))
    levels = dataset.levels[label]
    if kind == "multiclass":
        return MulticlassHead(width, levels.tolist())
    values = interactions.labels[label][interactions.part == TRAIN]
    return OrdinalHead(width, levels.tolist(), [float((values == level).sum()) for level in levels])


def build_objective(config: RunConfig, dataset: Dataset, flm: FLM) -> Objective:
    """The tasks that are on, with their weights."""
    tasks: dict[str, nn.Module] = {}
    weights: dict[str, float] = {}
    on, schema = config.tasks, dataset.schema.interactions
    if on.rank is not None:
        for name, view in (("user", flm.user_view), ("item", flm.item_view)):
            if view is None:
                raise UserError(
                    f"tasks.rank: the data has no {name}s; allowed: with interactions.{name}"
                )
        assert schema is not None
        is_logged = schema.negatives == "logged"
        tasks["rank"] = LoggedRanking() if is_logged else Ranking(mask_seen=not schema.repeats)
        weights["rank"] = on.rank.weight
    if on.align is not None:
        if len(flm.view_names) < 2:
            raise UserError(
                f"tasks.align: needs two views of an item, the data has {list(flm.view_names)}; "
                "allowed: with views.text over items.text, or with a vector in items.features"
            )
        tasks["align"] = Alignment(temperature=on.align.temperature)
        weights["align"] = on.align.weight
    if on.mlm is not None:
        text = flm.text_view
        assert text is not None
        tasks["mlm"] = MaskedLM(hidden=text.hidden, vocabulary=text.token_embedding().shape[0])
        weights["mlm"] = on.mlm.weight
    if on.heads is not None:
        taken = sorted({*tasks, "heads"} & set(dataset.interactions.labels))
        if taken:
            raise UserError(
                f"interactions.labels.{taken[0]}: a task is called so; allowed: another name"
            )
        tasks["heads"] = build_heads(config, dataset)
        weights |= {"heads": on.heads.weight, **on.heads.weights}
    return Objective(tasks, weights)


def build_model(config: RunConfig, dataset: Dataset, encoder: TextEncoder | None) -> FLMTrain:
    """The model with its objective."""
    flm = build_flm(config, dataset, encoder)
    return FLMTrain(flm, build_objective(config, dataset, flm))


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
