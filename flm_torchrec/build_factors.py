"""The factorisation of the labels of a configuration and its data, kept beside the data."""

import numpy as np
import torch
from torch import Tensor

from flm_torchrec.build_data import any_order, window_of
from flm_torchrec.build_linear import kept_file
from flm_torchrec.config import RunConfig
from flm_torchrec.data.dataset import TRAIN, Dataset
from flm_torchrec.data.told import always_labels, scaled_labels
from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_file
from flm_torchrec.tasks.heads import Heads
from flm_torchrec.tasks.label_factors import LabelFactors, packed
from flm_torchrec.tasks.label_factors_fit import Labelled, fit_factors
from flm_torchrec.trainable import FLMTrain

FOLDS = 4
# Of the fit: raise it when the same data and setting give other tables.
VERSION = "label factors 1"


def label_factors(config: RunConfig, dataset: Dataset) -> LabelFactors | None:
    """The module, to be filled with `label_tables`; None where `tasks.heads` has no `factors`."""
    heads = config.tasks.heads
    if heads is None or not heads.factors:
        return None
    if dataset.users is None or dataset.items is None or not window_of(config, dataset):
        raise UserError(
            "tasks.heads.factors: the data has no histories of items, by whose labels users are "
            "known; allowed: 0"
        )
    places = _places(dataset)
    if not places:
        raise UserError(
            "tasks.heads.factors: the data has no binary, ordinal or real label; allowed: 0"
        )
    return LabelFactors(places, rank=heads.factors, any_order=any_order(config, dataset))


def _places(dataset: Dataset) -> list[int]:
    """Of the labels that are numbers, and not the same for all interactions."""
    schema = dataset.schema.interactions
    assert schema is not None
    always = always_labels(dataset)
    kinds = [label.kind for label in schema.labels.values()]
    return [t for t, kind in enumerate(kinds) if kind != "multiclass" and t not in always]


def fitted(dataset: Dataset, *, rank: int) -> tuple[Tensor, Tensor]:
    """`LabelFactors.table` and `.common`, of the training part."""
    interactions, users, items = dataset.interactions, dataset.users, dataset.items
    assert users is not None
    assert items is not None
    is_met = (interactions.part == TRAIN) & (interactions.user > 0) & (interactions.item > 0)
    row = np.flatnonzero(is_met)
    labels = torch.from_numpy(scaled_labels(dataset, row))
    user, item = interactions.user[row], interactions.item[row]
    places, tables, commons = _places(dataset), [], []
    for fold in (None, *range(FOLDS)):
        is_in = np.ones(len(row), dtype=bool) if fold is None else user % FOLDS != fold
        found = []
        for place in places:
            is_known = is_in & labels[:, place].isfinite().numpy()
            data = Labelled(
                user=user[is_known],
                item=item[is_known],
                label=labels[torch.from_numpy(is_known), place],
                met_user=user[is_in],
                met_item=item[is_in],
                num_users=len(users.ids),
                num_items=len(items.ids),
            )
            found.append(packed(fit_factors(data, rank=rank)))
        own_tables, own_commons = zip(*found, strict=True)
        tables.append(torch.stack(own_tables, dim=1))
        commons.append(torch.stack(own_commons))
    return torch.stack(tables), torch.stack(commons)


def label_tables(config: RunConfig, dataset: Dataset) -> tuple[Tensor, Tensor]:
    """The same, read from beside the data where they are there, else written to it."""
    assert config.tasks.heads is not None
    described = f"{VERSION} {dataset.fingerprint} {config.tasks.heads.factors}"
    file = kept_file(config, "labels", described, suffix=".npz")
    if not file.exists():
        table, common = fitted(dataset, rank=config.tasks.heads.factors)
        with atomic_file(file) as temporary, temporary.open("wb") as handle:
            np.savez(handle, table=table.numpy(), common=common.numpy())
    with np.load(file) as arrays:
        return torch.from_numpy(arrays["table"]), torch.from_numpy(arrays["common"])


def factors_of(model: FLMTrain) -> LabelFactors | None:
    """The factorisation that a model's heads read, if they do."""
    for task in model.objective.tasks.values():
        if isinstance(task, Heads):
            return task.factors
    return None
