"""How the items of a run lie in the joint space: figures of every view, and a map of each."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flm_torchrec.assemble import Assembly
from flm_torchrec.data.dataset import Dataset, Entity
from flm_torchrec.data.preparing.fits import read_vocabulary
from flm_torchrec.data.reading.location import Location
from flm_torchrec.evaluation.diagnostics import FUSED, Diagnostics, diagnose
from flm_torchrec.evaluation.item_map import ItemMap, item_map
from flm_torchrec.model import Items
from flm_torchrec.retrieval import encode_items, evaluating
from flm_torchrec.training.runtime import all_gather

MOST_ITEMS = 4096  # that the figures are taken of
MOST_POINTS, MOST_POINTS_A_VIEW = 3000, 600


def diagnosis(assembly: Assembly) -> Diagnostics | None:
    """Figures of the item views as the model stands now, over the catalogue or 4096 items spread
    evenly over it; None without items. Called by all ranks."""
    items = assembly.dataset.items
    if items is None or assembly.model.flm.item_view is None:
        return None
    found = _encoded(assembly, _rows(items, MOST_ITEMS))
    names = assembly.model.flm.view_names
    return diagnose(names, found.views, found.present, found.weights, found.row)


def gradient_cosines(assembly: Assembly, step: int) -> dict[str, float]:
    """ "FIRST/SECOND" -> the cosine between the gradients of two tasks with respect to the views of
    the training batch of `step`, as the model stands now; {} of a single task. Called by all
    ranks."""
    objective, names = assembly.model.objective, assembly.model.objective.names
    if len(names) < 2:
        return {}
    batch = assembly.collator.step(assembly.sampler, step).to(assembly.runtime.device)
    with evaluating(assembly.model):
        found = objective.cosines(assembly.model.flm(batch), batch, gather=all_gather).tolist()
    return {
        f"{names[first]}/{names[second]}": found[first][second]
        for second in range(len(names))
        for first in range(second)
    }


def map_of_items(assembly: Assembly) -> ItemMap | None:
    """Items spread evenly over the catalogue by view, in the colours of their first feature that
    has words; None without items. Called by all ranks."""
    items, names = assembly.dataset.items, assembly.model.flm.view_names
    if items is None or not names:
        return None
    most = min(MOST_POINTS_A_VIEW, MOST_POINTS // (len(names) + 1))
    rows = _rows(items, most)
    found = _encoded(assembly, rows)
    prepared = Location.of(assembly.config.data.home).made / "prepared"
    grouped_by, values = words_of_items(assembly.dataset, prepared, rows)
    titles = items.titles
    return item_map(
        {
            **dict(zip(names, zip(found.views, found.present, strict=True), strict=True)),
            FUSED: (found.row, found.present.any(0)),
        },
        [titles[row] for row in rows],
        values,
        grouped_by=grouped_by,
    )


def words_of_items(
    dataset: Dataset, prepared: Path, rows: NDArray[np.int64]
) -> tuple[str, list[list[str]]]:
    """The first feature of the items whose values are known by word, and those of each of `rows`;
    of domains which one it is; ("", none of each) where there is none. `prepared` holds the
    prepared folder."""
    items, schema = dataset.items, dataset.schema.items
    assert items is not None
    assert schema is not None
    if dataset.domains is not None:
        return "domain", [[dataset.domains.names[n - 1]] for n in dataset.domains.items[rows]]
    for name, column in items.columns.items():
        vocabulary = read_vocabulary(prepared / dataset.fingerprint, f"items.{name}")
        if name == schema.id or vocabulary is None:
            continue
        words = ["", *map(str, vocabulary.values.to_pylist())]
        own = (column.values[column.bounds[row] : column.bounds[row + 1]] for row in rows)
        return name, [[words[value] for value in values if value] for values in own]
    return "", [[] for _ in rows]


def _rows(items: Entity, most: int) -> NDArray[np.int64]:
    num_items = len(items.ids) - 1  # row 0 is no item
    return np.linspace(1, num_items, min(most, num_items)).astype(np.int64)


def _encoded(assembly: Assembly, rows: NDArray[np.int64]) -> Items:
    with evaluating(assembly.model):
        return encode_items(assembly.model, assembly.collator, rows, assembly.runtime.device)
