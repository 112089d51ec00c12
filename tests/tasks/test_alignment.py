import math

import pytest
import tiny
import tiny_model
import torch
from two_ranks.pool import Ranks

from flm_torchrec.tasks.alignment import Alignment
from flm_torchrec.training.runtime import Runtime, all_gather


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


@pytest.mark.parametrize(("logit", "scale"), [(50.0, 0.5), (-50.0, 200.0)])
def test_the_temperature_is_bounded(logit, scale):
    task = Alignment()
    with torch.no_grad():
        task.temperature_logit.fill_(logit)
    rows = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0]])
    swapped = loss(task, torch.stack([rows, rows[[0, 2, 1]]]), [1, 2])
    assert swapped.item() == pytest.approx(math.log(1 + math.exp(-scale)) + scale, rel=1e-4)


def test_a_temperature_near_its_bound_can_come_back():
    task = Alignment()
    with torch.no_grad():
        task.temperature_logit.fill_(-8.0)
    assert task.scale() > 198
    rows = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0]])
    optimizer = torch.optim.Adam(task.parameters(), lr=1.0)
    for _ in range(10):
        swapped = loss(task, torch.stack([rows, rows[[0, 2, 1]]]), [1, 2])
        optimizer.zero_grad()
        swapped.backward()
        optimizer.step()
    assert task.scale() < 50


def test_one_item_twice_is_no_negative_of_itself():
    rows = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.2]])
    task = Alignment(temperature=0.5)
    batch = tiny_model.batch([[1]], item_row=[0, 1, 2, 1], aligned=[1, 2, 3])
    value = task(tiny_model.views(item_views=torch.stack([rows, rows])), batch)
    # Rows 1 and 3 are one item: each has row 2 alone as a negative, row 2 has both.
    first, third = math.log(1 + math.exp(-2)), 0.2 / math.hypot(1, 0.2)
    second = math.log(1 + math.exp(-2) + math.exp(2 * third - 2))
    expected = (first + second + math.log(1 + math.exp(2 * third - 2))) / 3
    assert value.item() == pytest.approx(expected)


def met(states: torch.Tensor, rows: torch.Tensor, edges: list[int], **more) -> torch.Tensor:
    """The loss of a single view, over edges of users who met items 1, 2, ... at their steps."""
    num_users, num_states, _ = states.shape
    window = num_states - 1
    history = torch.arange(1, 1 + num_users * window).reshape(num_users, window)
    batch = tiny_model.batch(
        history.tolist(), item_row=more.get("item_row", range(len(rows))), aligned_edges=edges
    )
    views = tiny_model.views(states=states, row=rows, item_views=rows[None])
    return more.get("task", Alignment(temperature=0.5))(views, batch)


def test_a_user_and_the_item_met_by_hand():
    states = torch.tensor([[[1.0, 0.0], [9.0, 9.0]], [[0.0, 2.0], [9.0, 9.0]]])
    rows = torch.tensor([[9.0, 9.0], [3.0, 0.0], [0.0, 1.0]])
    assert met(states, rows, [0, 1]).item() == pytest.approx(math.log(1 + math.exp(-2)))
    swapped = met(states, rows[[0, 2, 1]], [0, 1])
    assert swapped.item() == pytest.approx(math.log(1 + math.exp(2)))


def test_what_stands_in_for_an_edge_has_no_weight():
    states, rows = torch.randn(2, 2, 4), torch.randn(3, 4)
    whole = met(states, rows, [0, 1])
    torch.testing.assert_close(met(states, rows, [0, -1, 1, -1]), whole)
    states.requires_grad_()
    nobody = met(states, rows, [-1, -1])
    nobody.backward()
    assert nobody.item() == 0.0
    assert (states.grad == 0).all()


def test_what_else_a_user_met_is_no_negative():
    # One user met items 1 and 2, the other items 3 and 4.
    states = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [9.0, 9.0]], [[0.0, 1.0]] * 3])
    rows = torch.tensor([[9.0, 9.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    alone = math.log(1 + math.exp(-2))
    assert met(states, rows, [0, 1, 2]).item() == pytest.approx(
        (4 * alone + 2 * math.log(1 + 2 * math.exp(-2))) / 6
    )


def test_an_item_that_two_users_met_is_no_negative_of_either():
    states = torch.tensor([[[1.0, 0.0]] * 2, [[1.0, 0.0]] * 2, [[0.0, 1.0]] * 2])
    rows = torch.tensor([[9.0, 9.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    both = met(states, rows, [0, 1, 2], item_row=[0, 5, 5, 6])
    alone, of_third = math.log(1 + math.exp(-2)), math.log(1 + 2 * math.exp(-2))
    assert both.item() == pytest.approx((4 * alone + 2 * of_third) / 6)


def test_users_and_items_are_aligned_beside_the_views():
    rows = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0]])
    states = torch.tensor([[[1.0, 0.0]] * 2, [[0.0, 1.0]] * 2])
    batch = tiny_model.batch([[1], [2]], item_row=[0, 1, 2], aligned=[1, 2], aligned_edges=[0, 1])
    views = tiny_model.views(states=states, row=rows, item_views=torch.stack([rows, rows]))
    value = Alignment(temperature=0.5)(views, batch)
    assert value.item() == pytest.approx(2 * math.log(1 + math.exp(-2)))


def halves_of_edges(runtime: Runtime) -> tuple[float, list[list[float]], list[list[float]]]:
    """-> of this rank's share of 4 edges of 4 users, the loss and its gradients by the states
    before them and by the items' rows."""
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(4, 2, 3, generator=draw).requires_grad_()
    rows = torch.randn(5, 3, generator=draw).requires_grad_()
    edges = [0, 1, 3, -1][runtime.rank :: runtime.world_size]
    value = met(states, rows, edges, item_row=[0, 1, 2, 3, 2], task=Alignment(gather=all_gather))
    value.backward()
    assert states.grad is not None
    assert rows.grad is not None
    return value.item(), states.grad[:, 0].tolist(), rows.grad.tolist()


def test_two_ranks_on_half_the_edges_each_align_as_one_on_all(alone: Runtime, ranks: Ranks) -> None:
    value, *gradients = halves_of_edges(alone)
    both = ranks.run(halves_of_edges)
    assert [each[0] for each in both] == pytest.approx([value, value])
    for place, gradient in enumerate(gradients, 1):
        mean = torch.tensor([each[place] for each in both]).mean(0)
        torch.testing.assert_close(mean, torch.tensor(gradient))


def halved(runtime: Runtime) -> tuple[float, list[list[list[float]]], float]:
    """-> of this rank's share of 6 aligned items in 2 views, the loss, the gradient of the views
    (2, 7, 4) and that of the temperature."""
    everyone = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(0))
    item_views = everyone.clone().requires_grad_()
    task = Alignment(gather=all_gather)
    present = torch.ones(2, 7, dtype=torch.bool)
    present[1, 3] = False
    aligned = [2, 4, 1, 3, 5, 6][runtime.rank :: runtime.world_size]
    batch = tiny_model.batch([[1]], item_row=[0, 1, 2, 3, 4, 2, 6], aligned=aligned)
    value = task(tiny_model.views(item_views=item_views, present=present), batch)
    value.backward()
    assert item_views.grad is not None
    assert task.temperature_logit.grad is not None
    return value.item(), item_views.grad.tolist(), task.temperature_logit.grad.item()


def test_two_ranks_on_half_a_batch_each_align_as_one_on_the_whole(
    alone: Runtime, ranks: Ranks
) -> None:
    value, gradient, temperature = halved(alone)
    both = ranks.run(halved)
    assert [each[0] for each in both] == pytest.approx([value, value])
    mean = torch.tensor([each[1] for each in both]).mean(0)
    torch.testing.assert_close(mean, torch.tensor(gradient))
    assert [each[2] for each in both] == pytest.approx([temperature, temperature])


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_the_temperature_starts_as_given_and_is_learned(temperature):
    task = Alignment(temperature=temperature)
    rows = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0]])
    swapped = loss(task, torch.stack([rows, rows[[0, 2, 1]]]), [1, 2])
    expected = math.log(1 + math.exp(-1 / temperature)) + 1 / temperature
    assert swapped.item() == pytest.approx(expected, rel=1e-4)
    swapped.backward()
    assert task.temperature_logit.grad.abs() > 0


def test_the_loss_falls_until_an_items_views_agree(encoder_folder):
    config = tiny_model.config(
        text={"encoder": str(encoder_folder)}, tasks={"align": {"items": 8, "weight": 1.0}}
    )
    losses = tiny_model.train(tiny_model.parts(config, tiny.dataset()), steps=100)
    assert losses[-5:].mean() < 0.4 * losses[:3].mean()


def test_the_loss_falls_until_users_are_where_their_items_are():
    config = tiny_model.config(
        data={"users": 6},
        views={"fusion": "mean"},
        tasks={"align": {"edges": 12, "weight": 1.0, "temperature": 0.5}},
    )
    parts = tiny_model.parts(config, tiny.dataset(tiny.cycles()))
    losses = tiny_model.train(parts, steps=80)
    assert losses[-5:].mean() < 0.3 * losses[:3].mean()
    for name, parameter in parts.model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
