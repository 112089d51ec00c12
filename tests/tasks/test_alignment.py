import math

import pytest
import tiny
import tiny_model
import torch

from flm_torchrec.tasks.alignment import Alignment


def loss(
    task: Alignment,
    item_views: torch.Tensor,
    aligned: list[int],
    present: torch.Tensor | None = None,
) -> torch.Tensor:
    batch = tiny_model.batch([[1]], item_row=[0, 1, 2], aligned=aligned)
    return task(tiny_model.views(item_views=item_views, present=present), batch)


def test_two_views_by_hand():
    rows = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0]])
    task = Alignment(temperature=0.5)
    same = loss(task, torch.stack([rows, rows]), [1, 2])
    assert same.item() == pytest.approx(math.log(1 + math.exp(-2)))
    swapped = loss(task, torch.stack([rows, rows[[0, 2, 1]]]), [1, 2])
    assert swapped.item() == pytest.approx(math.log(1 + math.exp(2)))


def test_three_views_are_the_mean_over_their_pairs():
    rows = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0]])
    task = Alignment(temperature=0.5)
    three = loss(task, torch.stack([rows, rows, rows[[0, 2, 1]]]), [1, 2])
    same, swapped = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert three.item() == pytest.approx((same + 2 * swapped) / 3)


def test_a_row_counts_for_a_pair_of_views_only_where_it_has_both():
    rows = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    present = torch.tensor([[True, True, True], [False, True, True], [False, False, True]])
    task = Alignment(temperature=0.5)
    three = loss(task, torch.stack([rows, rows, rows]), [0, 1, 2], present)
    # The first two views share rows 1 and 2, every other pair row 2 alone.
    assert three.item() == pytest.approx(math.log(1 + math.exp(-2)) / 3)


def test_only_the_aligned_rows_count():
    rows = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    task = Alignment()
    before = loss(task, rows, [1, 2])
    rows[:, 0] += 1
    assert loss(task, rows, [1, 2]) == before
    assert loss(task, rows, []).item() == 0.0
    assert loss(task, rows, [1]).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("log_scale", "scale"), [(50.0, 100.0), (-50.0, 1.0)])
def test_the_temperature_is_bounded(log_scale, scale):
    task = Alignment()
    with torch.no_grad():
        task.log_scale.fill_(log_scale)
    rows = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0]])
    swapped = loss(task, torch.stack([rows, rows[[0, 2, 1]]]), [1, 2])
    assert swapped.item() == pytest.approx(math.log(1 + math.exp(-scale)) + scale, rel=1e-4)


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_the_temperature_starts_as_given_and_is_learned(temperature):
    task = Alignment(temperature=temperature)
    rows = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0]])
    swapped = loss(task, torch.stack([rows, rows[[0, 2, 1]]]), [1, 2])
    expected = math.log(1 + math.exp(-1 / temperature)) + 1 / temperature
    assert swapped.item() == pytest.approx(expected, rel=1e-4)
    swapped.backward()
    assert task.log_scale.grad.abs() > 0


def test_the_loss_falls_until_an_items_views_agree(encoder_folder):
    config = tiny_model.config(
        text={"encoder": str(encoder_folder)}, tasks={"align": {"items": 8, "weight": 1.0}}
    )
    losses = tiny_model.train(tiny_model.parts(config, tiny.dataset()), steps=100)
    assert losses[-5:].mean() < 0.4 * losses[:3].mean()
