from dataclasses import replace

import pytest
import tiny
import tiny_model
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.tasks.pairwise import LabelOrder, SampledOrder, TimeOrder, pairwise_loss

# One user, 3 items, one dimension: item i scores i x state; the unknown item would win if it could.
ROW = torch.tensor([[50.0], [1.0], [2.0], [3.0]])
STATES = torch.tensor([[[1.0], [2.0], [4.0], [7.0]]])
ALL = [0, 1, 2, 3]


def loss(task: nn.Module, batch: FLMBatch, states: Tensor = STATES) -> float:
    return task(tiny_model.views(states=states, row=ROW), batch).item()


def below(*margins: float) -> float:
    """The mean of -log sigmoid(margin)."""
    return float(F.softplus(-torch.tensor(margins, dtype=torch.float32)).mean())


def labelled(history: list[list[int]], labels: list[float]) -> FLMBatch:
    """Edges with one label; nan = missing."""
    label = torch.tensor(labels)[:, None]
    is_there = label.isfinite().float()
    return tiny_model.batch(
        history,
        item_row=ALL,
        labels=label.nan_to_num(),
        label_weight=is_there / is_there.sum().clamp(min=1),
    )


def test_rows_without_pairs_are_0_with_a_gradient_of_0():
    margin = torch.tensor([[1.0, 2.0], [-1e30, 3.0]], requires_grad=True)
    value = pairwise_loss(margin, torch.tensor([[False, False], [False, True]]))
    assert value.tolist() == pytest.approx([0.0, below(3.0)])
    value.sum().backward()
    assert margin.grad[0].tolist() == [0.0, 0.0]
    assert margin.grad[1, 0] == 0.0


def test_an_item_that_was_met_is_above_the_sampled_ones():
    batch = tiny_model.batch([[1, 2]], item_row=ALL)
    first, second = below(1 - 3), below(4 - 6)  # 1 and 2 were both met
    assert loss(SampledOrder(), batch) == pytest.approx((first + second) / 2)
    earlier = tiny_model.batch([[1, 2]], item_row=ALL, known=[(0, 3)])
    assert loss(SampledOrder(), earlier) == 0.0


def test_of_two_edges_of_a_user_the_one_with_the_higher_label_is_above():
    batch = labelled([[1, 2, 3]], [5.0, 1.0, 3.0])
    # In the state before both: 1 for every pair with the first edge, 2 for the other two.
    first, second, third = below(1 - 2, 1 - 3), below(6 - 4), 0.0
    value = loss(LabelOrder(label=0), batch)
    assert value == pytest.approx((first + second + third) / 3)


def test_missing_and_equal_labels_make_no_pair():
    batch = labelled([[1, 2, 3]], [5.0, float("nan"), 3.0])
    assert loss(LabelOrder(label=0), batch) == pytest.approx(below(1 - 3) / 2)
    assert loss(LabelOrder(label=0), labelled([[1, 2, 3]], [4.0, 4.0, 4.0])) == 0.0
    assert loss(LabelOrder(label=0), labelled([[1, 2, 3]], [float("nan")] * 3)) == 0.0


def test_edges_at_one_step_are_in_the_same_state_both_ways():
    batch = labelled([[1, 2, 3]], [5.0, 1.0, float("nan")])
    together = replace(batch, edges=replace(batch.edges, step=torch.tensor([1, 1, 2])))
    assert loss(LabelOrder(label=0), together) == pytest.approx(below(2 - 4))


def test_edges_of_two_users_make_no_pair():
    batch = labelled([[1], [2]], [5.0, 1.0])
    assert loss(LabelOrder(label=0), batch, STATES.expand(2, -1, -1)) == 0.0
    assert loss(TimeOrder(), batch, STATES.expand(2, -1, -1)) == 0.0


def test_what_was_met_earlier_is_above_what_was_met_later():
    batch = tiny_model.batch([[2, 1, 3]], item_row=ALL)
    first, second = below(2 - 1, 2 - 3), below(2 - 6)
    assert loss(TimeOrder(), batch) == pytest.approx((first + second) / 3)


def test_in_a_window_read_backwards_the_earlier_is_above_all_the_same():
    batch = tiny_model.batch([[2, 1, 3]], item_row=ALL)
    backwards = replace(batch, edges=replace(batch.edges, time=torch.tensor([30, 20, 10])))
    first, second = below(1 - 2, 3 - 2), below(6 - 2)
    assert loss(TimeOrder(), backwards) == pytest.approx((first + second) / 3)


def test_events_of_one_second_make_no_pair_in_time():
    batch = tiny_model.batch([[2, 1, 3]], item_row=ALL)
    at_once = replace(batch, edges=replace(batch.edges, time=torch.tensor([10, 10, 20])))
    assert loss(TimeOrder(), at_once) == pytest.approx((below(2 - 3) + below(2 - 6)) / 3)


def test_padding_and_the_same_item_again_make_no_pair_in_time():
    assert loss(TimeOrder(), tiny_model.batch([[2, 3, 0]], item_row=ALL)) == pytest.approx(
        below(2 - 3) / 2
    )
    assert loss(TimeOrder(), tiny_model.batch([[2, 2, 0]], item_row=ALL)) == 0.0


@pytest.mark.parametrize(
    ("task", "batch"),
    [
        (SampledOrder(), tiny_model.batch([[1, 2]], item_row=ALL)),
        (LabelOrder(label=0), labelled([[1, 2, 3]], [5.0, 1.0, 3.0])),
        (TimeOrder(), labelled([[1, 2, 3]], [5.0, 1.0, 3.0])),
    ],
)
def test_states_and_items_get_a_gradient(task, batch):
    states, row = STATES.clone().requires_grad_(), ROW.clone().requires_grad_()
    task(tiny_model.views(states=states, row=row), batch).backward()
    assert (states.grad[0, :2].abs() > 0).all()
    assert states.grad[0, 3] == 0
    assert row.grad[0] == 0
    assert (row.grad[1:].abs() > 0).all()


@pytest.mark.parametrize("order", [{}, {"by": "label", "label": "rating"}])
def test_the_loss_falls_on_a_planted_order(order):
    """After item i comes item i + 1; even items are liked, odd ones are not."""
    config = tiny_model.config(data={"users": 6, "window": 6}, tasks={"order": order})
    losses = tiny_model.train(tiny_model.parts(config, tiny.dataset(tiny.cycles())), steps=60)
    assert losses[-5:].mean() < 0.3 * losses[:3].mean()


@pytest.mark.parametrize("reverse", [0.0, 0.5, 1.0])
def test_who_all_begin_with_the_same_items_begin_with_those(reverse):
    events = {user: [(item, 5) for item in range(1, 9)] for user in range(1, 7)}
    data = {"users": 6, "window": 6, "reverse": reverse}
    config = tiny_model.config(data=data, tasks={"order": {"by": "time"}})
    parts = tiny_model.parts(config, tiny.dataset(events))
    losses = tiny_model.train(parts, steps=60)
    assert losses[-5:].mean() < 0.3 * losses[:3].mean()
    batch = parts.collator.step(parts.sampler, 0)
    parts.model.eval()
    with torch.no_grad():
        views = parts.model.flm(batch)
    score = views.users.states[:, 0] @ views.items.row.T
    first, last = (batch.items.row == item for item in (1, 6))
    assert (score[:, first] > score[:, last]).all()
