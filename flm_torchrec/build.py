"""A configuration and its data become the model, its tasks and its dense optimizer."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn
from torchrec.modules.embedding_configs import DataType

from flm_torchrec.build_heads import build_heads
from flm_torchrec.build_history import build_history
from flm_torchrec.build_linear import linear_path, low_rank_path
from flm_torchrec.build_tasks import pretraining_tasks
from flm_torchrec.config import RunConfig
from flm_torchrec.data.dataset import Column, Dataset
from flm_torchrec.encoder import TextEncoder
from flm_torchrec.errors import UserError
from flm_torchrec.model import FLM
from flm_torchrec.tasks.balance import (
    Fixed,
    Gather,
    GradNorm,
    PCGrad,
    Uncertainty,
    no_gather,
)
from flm_torchrec.trainable import FLMTrain, Objective, loss_names
from flm_torchrec.views.fusion import Fusion, GatedFusion, MeanFusion, WeightedFusion
from flm_torchrec.views.sparse import SparseView, embedding_bags
from flm_torchrec.views.text import TextView
from flm_torchrec.views.vector import VectorView

FUSIONS: dict[str, type[Fusion]] = {
    "mean": MeanFusion,
    "weighted": WeightedFusion,
    "gated": GatedFusion,
}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def build_flm(config: RunConfig, dataset: Dataset, encoder: TextEncoder | None) -> FLM:
    """The model with its tables on the meta device."""
    views, users, items = config.views, dataset.users, dataset.items
    context = dataset.interactions.context
    data_type = DataType(config.train.sparse.dtype.upper())

    def sparse(prefix: str, columns: Mapping[str, Column], num_numbers: int) -> SparseView:
        rows = {name: column.num_embeddings for name, column in columns.items()}
        multi = frozenset(name for name in columns if columns[name].offsets is not None)
        bags = embedding_bags(prefix, rows, dim=views.width, multi=multi, data_type=data_type)
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
        text_view=encoder and text_view(config, encoder, texts),
        vector_views=vector_views,
        fusion=items
        and fusion(num_views=num_views, dim=views.width, view_dropout=views.view_dropout),
        history=build_history(config, dataset),
        linear=linear_path(config, dataset),
        low_rank=low_rank_path(config, dataset),
    )


def text_view(config: RunConfig, encoder: TextEncoder, names: Sequence[str]) -> TextView:
    """The view of the texts of those names."""
    text = config.views.text
    assert text is not None
    return TextView(
        encoder.model,
        hidden=encoder.hidden,
        dim=config.views.width,
        names=names,
        last_token=encoder.is_decoder,
        micro_batch=text.micro_batch,
        dtype=PRECISIONS[text.precision],
        ranks=encoder.ranks,
    )


def build_objective(
    config: RunConfig, dataset: Dataset, flm: FLM, *, gather: Gather = no_gather
) -> Objective:
    """The tasks that are on, with their weights and what balances them over all ranks."""
    weighted, on = pretraining_tasks(config, dataset, flm, gather=gather), config.tasks
    tasks = {name: task for name, (task, _) in weighted.items()}
    weights = {name: weight for name, (_, weight) in weighted.items()}
    if on.heads is not None:
        taken = sorted({*tasks, "heads"} & set(dataset.interactions.labels))
        if taken:
            raise UserError(
                f"interactions.labels.{taken[0]}: a task is called so; allowed: another name"
            )
        tasks["heads"] = build_heads(config, dataset)
        weights |= {"heads": on.heads.weight, **on.heads.weights}
    names = loss_names(tasks)
    balances = {
        "fixed": Fixed,
        "uncertainty": lambda: Uncertainty(names, gather=gather),
        "gradnorm": lambda: GradNorm(names, gather=gather),
        "pcgrad": lambda: PCGrad(gather=gather),
    }
    return Objective(tasks, weights, balance=balances[on.balance]())


def build_model(
    config: RunConfig, dataset: Dataset, encoder: TextEncoder | None, *, gather: Gather = no_gather
) -> FLMTrain:
    """The model with its objective; `gather` brings what all ranks have of a tensor to each."""
    flm = build_flm(config, dataset, encoder)
    return FLMTrain(flm, build_objective(config, dataset, flm, gather=gather))


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
