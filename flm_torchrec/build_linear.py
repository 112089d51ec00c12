"""The weights of the linear path of a configuration and its data, kept beside the data."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchrec.modules.embedding_configs import DataType

from flm_torchrec.build_data import any_order, id_bags, window_of
from flm_torchrec.config import RunConfig
from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.next_items import next_items
from flm_torchrec.data.reading.location import Location
from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_file
from flm_torchrec.views.linear import LinearPath
from flm_torchrec.views.linear_fit import item_weights, next_item_weights
from flm_torchrec.views.low_rank import LowRankPath
from flm_torchrec.views.set_linear import SetLinearPath
from flm_torchrec.views.sparse import SparseView, embedding_bags

# Each pair of a catalogue's items has a weight in each of five fits: 2 GB, of 2 items^3 operations
# a fit.
MOST_ITEMS = 10_000
_NO_HISTORIES = "views.linear: the data has no histories of items; allowed: null"
# Of the fit: raise it when the same data and setting give other weights.
VERSION = "next item 2"


def fitted(config: RunConfig, dataset: Dataset) -> Tensor:
    """(1 + folds, items, items): see `next_item_weights`, or where order does not matter
    `item_weights`."""
    linear, items, window = config.views.linear, dataset.items, window_of(config, dataset)
    assert linear is not None
    if items is None or dataset.users is None or not window:
        raise UserError(_NO_HISTORIES)
    if len(items.ids) > MOST_ITEMS:
        raise UserError(
            f"views.linear: the data has {len(items.ids)} items, each pair of which has a weight; "
            f"allowed: at most {MOST_ITEMS}, or views.linear.rank above 0: two tables of that width"
        )
    moments, num_items = next_items(dataset), len(items.ids)
    if any_order(config, dataset):
        return item_weights(moments, num_items=num_items, l2=linear.l2)
    return next_item_weights(
        moments, num_items=num_items, window=window, l2=linear.l2, reverse=linear.reverse
    )


def linear_path(config: RunConfig, dataset: Dataset) -> LinearPath | None:
    """The path that reads such weights; None without one."""
    linear = config.views.linear
    if linear is None or linear.rank:
        return None
    kind = SetLinearPath if any_order(config, dataset) else LinearPath
    return kind(boost=linear.boost)


def low_rank_path(config: RunConfig, dataset: Dataset) -> LowRankPath | None:
    """The path of two tables, on the meta device; None without one."""
    linear, bags = config.views.linear, id_bags(config, dataset)
    if linear is None or not linear.rank:
        return None
    if bags is None or dataset.users is None or not window_of(config, dataset):
        raise UserError(_NO_HISTORIES)
    rank = linear.rank
    rows = {name: column.num_embeddings for name, column in bags.columns.items()}
    data_type = DataType(config.train.sparse.dtype.upper())
    history = embedding_bags(
        "linear_history", rows, dim=rank, is_weighted=True, data_type=data_type
    )
    # From 0, so that the path begins as none.
    following = embedding_bags("linear_next", rows, dim=rank, std=0.0, data_type=data_type)
    return LowRankPath(
        SparseView(history, dim=rank), SparseView(following, dim=rank), dim=config.views.width
    )


def linear_weights(config: RunConfig, dataset: Dataset) -> Tensor:
    """The same, read from beside the data where they are there, else written to it."""
    assert config.views.linear is not None
    setting = {"window": window_of(config, dataset), "any order": any_order(config, dataset)}
    setting |= config.views.linear.model_dump(exclude={"rank", "boost"})
    described = f"{VERSION} {dataset.fingerprint} {sorted(setting.items())}"
    file = kept_file(config, "linear", described, suffix=".npy")
    if not file.exists():
        weight = fitted(config, dataset).numpy()
        with atomic_file(file) as temporary:
            np.save(temporary, weight)
    # Ranks of one machine share the pages that none of them fills in.
    return torch.from_numpy(np.load(file, mmap_mode="c"))


def kept_file(config: RunConfig, name: str, described: str, *, suffix: str) -> Path:
    """Where beside the data stands what was fitted as `described`."""
    key = hashlib.blake2b(described.encode(), digest_size=16).hexdigest()
    return Location.of(config.data.home).made / "prepared" / f"{name}-{key}{suffix}"
