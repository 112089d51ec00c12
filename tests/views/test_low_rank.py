import math
from dataclasses import replace

import pytest
import tiny
import tiny_model
import torch
from torch import Tensor
from torch.nn import functional as F
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.views.low_rank import LowRankPath
from flm_torchrec.views.sparse import SparseView, embedding_bags

RANK, WIDTH = 2, 3
FIRST, LAST = 0.7 + 0.3 + 0.03, 0.7 * math.exp(-1 / 15) + 0.3 * math.exp(-1 / 3) + 0.03


def path(num_ids: int = 4) -> LowRankPath:
    torch.manual_seed(0)
    rows = {"id": num_ids}
    made = LowRankPath(
        SparseView(embedding_bags("history", rows, dim=RANK, is_weighted=True), dim=RANK),
        SparseView(embedding_bags("next", rows, dim=RANK), dim=RANK),
        dim=WIDTH,
    )
    tiny_model.materialise(made)
    return made


def table(view: SparseView) -> Tensor:
    return next(iter(view.ebc.embedding_bags.values())).weight.detach()


def kjt(*bags: list[int], weights: list[float] | None = None) -> KeyedJaggedTensor:
    return KeyedJaggedTensor(
        keys=["id"],
        values=torch.tensor([row for bag in bags for row in bag], dtype=torch.int64),
        lengths=torch.tensor([len(bag) for bag in bags], dtype=torch.int32),
        weights=None if weights is None else torch.tensor(weights),
    )


def batch() -> FLMBatch:
    """A user met item 1 and then item 3, which has no id; item 2 is a negative twice, item 0 is
    the unknown one."""
    made = tiny_model.batch([[1, 3]], item_row=[0, 1, 2, 3, 2, 2], log_q=[0.0, 0.0])
    assert made.items is not None
    ids = kjt([], [1], [2], [], [2], [2])
    behind = kjt([], [1], weights=[FIRST])
    edges = replace(made.edges, behind=behind)
    return replace(made, items=replace(made.items, ids=ids), edges=edges)


def scores(made: LowRankPath, batch: FLMBatch, rows: Tensor) -> Tensor:
    assert batch.items is not None
    assert batch.users is not None
    next_row = made.items(batch.items.ids, rows)
    return made(batch.users, batch.items, batch.edges, rows, next_row)


def test_scores_by_hand():
    made, rows = path(), torch.randn(6, WIDTH)
    history, following = table(made.history), table(made.following)
    after_one = (FIRST * history[1] @ following[2]).item()
    assert scores(made, batch(), rows).tolist() == [
        [0, 0, 0],  # state 0 has seen nothing
        pytest.approx([0, after_one, after_one]),  # of item 3 nothing is known at first
    ]


def test_what_has_no_id_is_scored_and_read_by_its_content():
    made, rows = path(), torch.randn(6, WIDTH)
    torch.nn.init.normal_(made.history_content.projection.weight)
    torch.nn.init.normal_(made.following_content.weight)
    history = rows @ made.history_content.projection.weight.T
    following = rows @ made.following_content.weight.T
    read = FIRST * (table(made.history)[1] + history[1])
    found = scores(made, batch(), rows)
    assert found[1, 0].item() == pytest.approx((read @ following[3]).item(), rel=1e-5)
    following[1] += table(made.following)[1]
    users = replace(batch().users, behind=kjt([1], weights=[LAST]))
    last = LAST * (table(made.history)[1] + history[1]) + FIRST * history[3]
    torch.testing.assert_close(made.catalogue(users, rows, following), (last @ following.T)[None])


def test_the_path_begins_as_none_and_every_parameter_learns():
    config = tiny_model.config(views={"linear": {"rank": 4}}, data={"users": 6})
    parts = tiny_model.parts(config, tiny.dataset())
    low_rank = parts.model.flm.low_rank
    assert low_rank is not None
    torch.nn.init.zeros_(next(low_rank.following.parameters()))  # as its table begins
    step = parts.collator.step(parts.sampler, 0)
    assert (parts.model.flm(step).linear == 0).all()
    before = {name: value.detach().clone() for name, value in low_rank.named_parameters()}
    assert len(before) == 4
    tiny_model.train(parts, steps=2)
    for name, value in low_rank.named_parameters():
        assert (value != before[name]).any(), name
        assert value.grad.isfinite().all()


def test_the_path_alone_learns_what_follows():
    config = tiny_model.config(
        views={"linear": {"rank": 8}}, data={"users": 12, "window": 6}, tasks={"rank": {}}
    )
    parts = tiny_model.parts(config, tiny.dataset(tiny.cycles()))
    flm = parts.model.flm
    optimizer = torch.optim.Adam(flm.low_rank.parameters(), lr=0.05)
    losses = []
    for step in range(60):
        batch = parts.collator.step(parts.sampler, step)
        linear = flm(batch).linear
        may_be_met = batch.edges.weight * (batch.edges.step > 0)
        loss = F.cross_entropy(linear[:, 1:], batch.edges.item, reduction="none")
        losses.append((loss * may_be_met).sum() / may_be_met.sum())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[0] > 2
    assert losses[-1] < 0.4
