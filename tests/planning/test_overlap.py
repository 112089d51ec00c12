from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchrec import KeyedJaggedTensor

from flm_torchrec.planning.overlap import feeds
from flm_torchrec.planning.request import meta_collection
from flm_torchrec.planning.tables import Table

TABLE = (Table(name="t", rows=4, dim=8),)


@dataclass
class Batch:
    features: KeyedJaggedTensor
    ids: Tensor


class Fed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ebc = meta_collection(TABLE)

    def forward(self, batch: Batch) -> Tensor:
        return self.ebc(batch.features).values()


class Making(Fed):
    def forward(self, batch: Batch) -> Tensor:
        kjt = KeyedJaggedTensor(["t"], batch.ids, torch.ones_like(batch.ids))
        return self.ebc(kjt).values()


class Twice(Fed):
    def forward(self, batch: Batch) -> Tensor:
        return self.ebc(batch.features).values() + self.ebc(batch.features).values()


class Branching(Fed):
    def forward(self, batch: Batch) -> Tensor:
        return self.ebc(batch.features).values() if batch.ids.sum() > 0 else batch.ids


class Above(nn.Module):
    def __init__(self, below: nn.Module) -> None:
        super().__init__()
        self.below = below
        self.head = nn.Linear(8, 1)

    def forward(self, batch: Batch) -> Tensor:
        return self.head(self.below(batch))


def test_an_attribute_of_the_batch_is_named():
    (feed,) = feeds(Above(Fed()))
    assert (feed.module, feed.source, feed.problem) == ("below.ebc", "batch.features", None)


def test_a_kjt_made_in_forward_does_not_overlap():
    (feed,) = feeds(Above(Making()))
    assert feed.source is None
    assert "reads what forward makes" in str(feed.problem)


def test_a_collection_called_twice_or_never_is_told():
    assert "is called 2 times a step" in str(feeds(Twice())[0].problem)
    model = Fed()
    model.other = meta_collection((Table(name="u", rows=4, dim=8),))
    problems = {feed.module: feed.problem for feed in feeds(model)}
    assert problems["ebc"] is None
    assert "is called never a step" in str(problems["other"])


def test_a_forward_that_cannot_be_traced_is_told():
    assert "can't be traced" in str(feeds(Branching())[0].problem)
