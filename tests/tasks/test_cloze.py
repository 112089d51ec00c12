from dataclasses import replace

import pytest
import tiny_model
import torch
from torch import Tensor
from torch.nn import functional as F

from flm_torchrec.data.batch import ClozeRows
from flm_torchrec.tasks.cloze import ClozeTask

D, VALUES = 4, 3
HIDDEN = torch.randn(2, D, generator=torch.Generator().manual_seed(0))


def task(*, several: bool) -> ClozeTask:
    torch.manual_seed(0)
    return ClozeTask(dim=D, num_values=VALUES, several=several)


def loss(made: ClozeTask, target: list[list[int]], hidden: Tensor = HIDDEN) -> Tensor:
    batch = tiny_model.batch([[1]], item_row=[0, 1])
    cloze = ClozeRows(
        item=torch.arange(len(target)),
        target=torch.tensor(target, dtype=torch.int64).reshape(-1, 2),
    )
    assert batch.items is not None
    batch = replace(batch, items=replace(batch.items, cloze=cloze))
    views = tiny_model.views(row=torch.zeros(2, D))
    assert views.items is not None
    return made(replace(views, items=replace(views.items, hidden=hidden)), batch)


def test_several_values_are_a_question_each():
    made = task(several=True)
    # Values 1 and 3 of the first item, 2 of the other; 0 fills up.
    expected = F.binary_cross_entropy_with_logits(
        made.score(HIDDEN), torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]), reduction="sum"
    )
    assert loss(made, [[1, 3], [2, 0]]).item() == pytest.approx(expected.item() / 2)


def test_a_single_value_is_one_of_them():
    made = task(several=False)
    expected = F.cross_entropy(made.score(HIDDEN), torch.tensor([0, 1]))
    assert loss(made, [[1, 0], [2, 0]]).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("several", [True, False])
def test_every_parameter_and_the_rows_get_a_gradient(several):
    made, hidden = task(several=several), HIDDEN.clone().requires_grad_()
    loss(made, [[1, 3], [2, 0]], hidden).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in made.parameters())
    assert (hidden.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("several", [True, False])
def test_without_items_the_loss_is_0_and_has_a_gradient(several):
    made = task(several=several)
    value = loss(made, [], HIDDEN[:0])
    value.backward()
    assert value.item() == 0.0
    assert all(parameter.grad is not None for parameter in made.parameters())
