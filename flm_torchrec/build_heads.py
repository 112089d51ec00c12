"""A configuration and the data's labels become the heads."""

from torch import nn

from flm_torchrec.build_factors import label_factors
from flm_torchrec.config import HeadsConfig, RunConfig
from flm_torchrec.data.dataset import TRAIN, Dataset
from flm_torchrec.data.schema import InteractionSchema
from flm_torchrec.data.told import always_labels, given_label
from flm_torchrec.errors import UserError
from flm_torchrec.tasks.bottoms import PLE, MMoE, SharedBottom
from flm_torchrec.tasks.cross import FM, DCNv2
from flm_torchrec.tasks.edge_input import EdgeInput, Inputs
from flm_torchrec.tasks.heads import (
    BinaryHead,
    Head,
    Heads,
    MulticlassHead,
    OrdinalHead,
    RealHead,
)


def build_heads(config: RunConfig, dataset: Dataset) -> Heads:
    """One head a declared label."""
    tasks, schema = config.tasks.heads, dataset.schema.interactions
    assert tasks is not None
    if schema is None or not schema.labels:
        raise UserError("tasks.heads: the data's schema declares no labels (interactions.labels)")
    _check_labels(tasks, list(schema.labels))
    _check_always(dataset, schema)
    inputs = _inputs(config, dataset)
    if tasks.biases and not inputs.num_features:
        raise UserError(
            "tasks.heads.biases: the data has no user, item or feature to learn a bias of; "
            "allowed: []"
        )
    cross = {
        "none": lambda: None,
        "fm": lambda: FM(num_vectors=inputs.num_vectors),
        "dcn": lambda: DCNv2(num_vectors=inputs.num_vectors, dim=inputs.dim),
    }
    factors = label_factors(config, dataset)
    width = tasks.width + (0 if factors is None else len(factors.places))
    heads = {
        name: build_head(
            dataset, name, width + (inputs.features_width if name in tasks.biases else 0)
        )
        for name in schema.labels
    }
    edge_input = EdgeInput(inputs, cross=cross[tasks.cross]())
    return Heads(
        heads,
        edge_input,
        build_bottom(tasks, edge_input.width, num_tasks=len(heads)),
        adapter=tasks.adapter,
        biased=tasks.biases,
        joint={name: _given(schema, name) for name in tasks.joint},
        l2=tasks.l2,
        factors=factors,
    )


def _check_labels(tasks: HeadsConfig, labels: list[str]) -> None:
    named = {"weights": tasks.weights, "biases": tasks.biases, "joint": tasks.joint}
    for field, names in named.items():
        unknown = sorted(set(names) - set(labels))
        if unknown:
            raise UserError(f"tasks.heads.{field}.{unknown[0]}: no such label; allowed: {labels}")


def _check_always(dataset: Dataset, schema: InteractionSchema) -> None:
    for place in always_labels(dataset):
        if dataset.items is None or schema.negatives == "logged":
            lacks = "there are no items" if dataset.items is None else "negatives are logged"
            raise UserError(
                f"interactions.labels.{list(schema.labels)[place]}: always holds, so its head "
                f"learns from sampled items, but {lacks}; allowed: a column or a predicate"
            )


def _given(schema: InteractionSchema, name: str) -> str:
    """The label that a joint label is given."""
    label, given = schema.labels[name], given_label(schema, name)
    if label.kind == "binary" and given is not None:
        return given
    if label.kind != "binary":
        reason = f"is {label.kind}"
    elif label.where is None:
        reason = "has no 'where'"
    else:
        reason = f"has where: {label.where}, which is not what another binary label says"
    raise UserError(
        f"tasks.heads.joint: '{name}' {reason}; allowed: a binary label whose 'where' is exactly "
        "the predicate of another binary label, or COLUMN == 1 of one without a predicate"
    )


def _inputs(config: RunConfig, dataset: Dataset) -> Inputs:
    interactions = dataset.interactions
    entities = [entity for entity in (dataset.users, dataset.items) if entity is not None]
    columns = [interactions.context, *(entity.columns for entity in entities)]
    num_numbers = interactions.numbers.shape[1]
    num_numbers += 0 if dataset.users is None else dataset.users.num_numbers
    num_numbers += 0 if dataset.items is None else dataset.items.numbers.shape[1]
    return Inputs(
        dim=config.views.width,
        has_user=dataset.users is not None,
        has_item=dataset.items is not None,
        num_features=sum(map(len, columns)),
        num_numbers=num_numbers,
    )


def build_bottom(tasks: HeadsConfig, seen: int, *, num_tasks: int) -> nn.Module:
    """The bottom by its name, over edges seen by `seen` numbers."""
    hidden, width, dropout = tasks.hidden, tasks.width, tasks.dropout
    if tasks.bottom == "shared":
        return SharedBottom(seen, num_tasks=num_tasks, hidden=hidden, width=width, dropout=dropout)
    if tasks.bottom == "mmoe":
        return MMoE(
            seen,
            num_tasks=num_tasks,
            experts=tasks.experts,
            hidden=hidden,
            width=width,
            dropout=dropout,
        )
    return PLE(
        seen,
        num_tasks=num_tasks,
        experts=tasks.experts,
        own_experts=tasks.own_experts,
        num_layers=tasks.layers,
        hidden=hidden,
        width=width,
        dropout=dropout,
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
