"""What items that training never met get from their content."""

import numpy as np
import torch
from numpy.typing import NDArray

from flm_torchrec.build_factors import factors_of
from flm_torchrec.data.content import item_content, warm_and_cold
from flm_torchrec.data.dataset import TRAIN, Dataset
from flm_torchrec.tasks.label_factors import with_cold
from flm_torchrec.trainable import FLMTrain
from flm_torchrec.views.linear_fit import fill_cold


def fill_cold_items(model: FLMTrain, dataset: Dataset) -> None:
    """Give the linear path and the factors of the labels, where they are, what the items' content
    says of those that training never met; to be repeated where the texts' vectors change."""
    linear, factors = model.flm.linear, factors_of(model)
    warm_rows, cold_rows = warm_and_cold(dataset)
    if (linear is None and factors is None) or len(warm_rows) == 0 or len(cold_rows) == 0:
        return
    assert dataset.items is not None
    text = model.flm.text_view
    texts = np.zeros((0, len(dataset.items.ids), 1), dtype=np.float32)
    if text is not None:
        texts = text.vectors.cpu().numpy()
    content = item_content(dataset, texts, warm_rows)
    warm, cold = torch.from_numpy(warm_rows), torch.from_numpy(cold_rows)
    if linear is not None:
        device = linear.weight.device
        met = torch.from_numpy(times_met(dataset)[warm_rows])
        on_device = (rows.to(device) for rows in (warm, cold, content, met))
        fill_cold(linear.weight, *on_device)
    if factors is not None:
        device = factors.table.device
        on_device = (rows.to(device) for rows in (warm, cold, content))
        factors.table = with_cold(factors.table, factors.common, *on_device)


def times_met(dataset: Dataset) -> NDArray[np.float32]:
    """(items,) how often training met each."""
    interactions, items = dataset.interactions, dataset.items
    assert items is not None
    met = interactions.item[interactions.part == TRAIN]
    return np.bincount(met, minlength=len(items.ids)).astype(np.float32)
