"""A trained run with users, items and clicks that came after it; its weights stay as they are."""

from dataclasses import replace

import torch
from torch import nn

from flm_torchrec.assemble import Assembly
from flm_torchrec.build_cold import fill_cold_items
from flm_torchrec.build_data import any_order, id_bags
from flm_torchrec.build_factors import factors_of
from flm_torchrec.data.collate import Collator
from flm_torchrec.data.dataset import VALIDATION, Dataset
from flm_torchrec.data.negatives import NoItems
from flm_torchrec.data.newcomers import Newcomers, with_newcomers
from flm_torchrec.data.reading.location import Location
from flm_torchrec.data.sampling import histories
from flm_torchrec.encoder import tokenised
from flm_torchrec.errors import UserError
from flm_torchrec.views.vector import VectorView


def grown(assembly: Assembly, newcomers: Newcomers) -> Assembly:
    """The run over its data and the newcomers, to score with; called by all ranks.

    The model, which both runs share, knows the new items afterwards: their texts and vectors, and
    what the linear path makes of them.
    """
    before, runtime = assembly.dataset, assembly.runtime
    if before.domains is not None:
        given = next(path for path in (newcomers.users, newcomers.items, newcomers.history) if path)
        raise UserError(
            f"{given}: the run's data are those of domains ({', '.join(before.domains.names)}); "
            "allowed: a run over one folder, data.path"
        )
    prepared = Location.of(assembly.config.data.home).made / "prepared" / before.fingerprint
    dataset = with_newcomers(before, newcomers, prepared)
    if newcomers.items is not None:
        _add_items(assembly, dataset)
        fill_cold_items(assembly.model, dataset)
    collator = Collator(
        dataset,
        histories(dataset.interactions, before_part=VALIDATION),
        window=assembly.collator.window,
        negatives=NoItems(),
        text=None,
        any_order=any_order(assembly.config, dataset),
        id_bags=id_bags(assembly.config, dataset),
        rank=runtime.rank,
        world_size=runtime.world_size,
    )
    return replace(assembly, dataset=dataset, collator=collator)


def _add_items(assembly: Assembly, dataset: Dataset) -> None:
    """Bring the items that the run's data lack into the model's buffers."""
    flm, text = assembly.model.flm, assembly.config.views.text
    assert assembly.dataset.items is not None
    assert dataset.items is not None
    num_before = len(assembly.dataset.items.ids)
    for view, vectors in zip(flm.vector_views, dataset.items.vectors.values(), strict=True):
        assert isinstance(view, VectorView)
        view.append(torch.from_numpy(vectors[num_before:]))
    num_more = len(dataset.items.ids) - num_before
    factors = factors_of(assembly.model)
    if factors is not None:
        factors.grow(num_more)
    if flm.linear is not None:
        flm.linear.weight = nn.functional.pad(flm.linear.weight[:1], (0, num_more, 0, num_more))
    if flm.text_view is None or assembly.encoder is None or text is None or not flm.text_view.names:
        return
    texts = {name: texts[num_before:] for name, texts in dataset.items.text.items()}
    alone = replace(dataset.items, ids=dataset.items.ids[num_before:], text=texts)
    more = tokenised(replace(dataset, items=alone, corpus=[]), assembly.encoder, text)
    vectors = [flm.text_view.vectors, assembly.encode(more, keep=False)]
    flm.text_view.vectors = torch.cat(vectors, dim=1)
