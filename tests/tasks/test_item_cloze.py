import math
from dataclasses import replace

import pytest
import tiny
import tiny_model
import torch
from torch import Tensor

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.model import Views
from flm_torchrec.tasks.item_cloze import ItemCloze

# 3 items, one dimension: item i scores i x state; the unknown item would win if it could.
ROW = torch.tensor([[50.0], [1.0], [2.0], [3.0]])
ALL = [0, 1, 2, 3]


def views(hidden: Tensor) -> Views:
    made = tiny_model.views(row=ROW)
    assert made.users is not None
    return replace(made, users=replace(made.users, hidden=hidden))


def loss(batch: FLMBatch, hidden: Tensor, *, mask_seen: bool = False) -> Tensor:
    return ItemCloze(mask_seen=mask_seen)(views(hidden), batch)


def log_sum(*scores: float) -> float:
    return math.log(sum(math.exp(score) for score in scores))


def two_users(hidden: list[list[int]]) -> FLMBatch:
    return tiny_model.batch([[1, 2], [3, 0]], item_row=ALL, hidden=hidden, known=[(1, 2)])


STATES = torch.tensor([[[1.0], [2.0]], [[3.0], [9.0]]])  # of 2 users, 2 hidden events each


def test_hidden_events_by_hand():
    batch = two_users([[1, 0], [0, -1]])
    losses = [log_sum(1, 2, 3) - 2, log_sum(2, 4, 6) - 2, log_sum(3, 6, 9) - 9]
    assert loss(batch, STATES).item() == pytest.approx(sum(losses) / 3)


def test_the_mean_is_over_the_hidden_events_of_all_ranks():
    batch = two_users([[1, 0], [0, -1]])  # 3, of 3 + 1 on two ranks
    other = torch.tensor([1])
    task = ItemCloze(mask_seen=False, gather=lambda own: torch.cat([own, other]))
    assert task(views(STATES), batch).item() == pytest.approx(loss(batch, STATES).item() * 3 / 2)


def test_what_was_met_at_another_time_is_masked_where_nobody_meets_an_item_twice():
    batch = two_users([[1, 0], [0, -1]])
    losses = [log_sum(2, 3) - 2, log_sum(2, 6) - 2, log_sum(3, 9) - 9]
    assert loss(batch, STATES, mask_seen=True).item() == pytest.approx(sum(losses) / 3)


def test_sampled_negatives_are_corrected():
    batch = tiny_model.batch(
        [[1, 2]], item_row=ALL, first=ALL, log_q=[0.5, -0.25, 0.5], hidden=[[0]]
    )
    expected = log_sum(1, 2.25, 2.5) - 1
    assert loss(batch, STATES[:1, :1]).item() == pytest.approx(expected)


def test_where_nothing_is_hidden_the_loss_is_0_with_a_gradient():
    states = STATES.clone().requires_grad_()
    value = loss(two_users([[-1, -1], [-1, -1]]), states)
    value.backward()
    assert value.item() == 0.0
    assert (states.grad == 0).all()


def one_step(share: float = 0.3) -> tuple[tiny_model.Parts, FLMBatch]:
    config = tiny_model.config(
        data={"window": 6}, tasks={"rank": {}, "item_cloze": {"share": share}}
    )
    made = tiny_model.parts(config, tiny.dataset())
    return made, made.collator.step(made.sampler, 0)


def test_a_hidden_event_is_read_from_all_others_and_not_from_itself():
    made, batch = one_step()
    made.model.eval()
    assert batch.users is not None
    batch = replace(batch, users=replace(batch.users, hidden=torch.tensor([[1], [0]])))
    users, flm = batch.users, made.model.flm
    rows = torch.randn(9, 8, requires_grad=True)
    found = flm.users(users, rows).hidden
    assert found.shape == (2, 1, 8)
    found[0].square().sum().backward()
    own = users.history[0, 1]
    others = [int(row) for row in users.history[0, : int(users.num_events[0])] if row != own]
    assert (rows.grad[own] == 0).all()
    assert (rows.grad[others].abs().sum(1) > 0).all()  # what came later too
    labels = users.event_labels.clone()
    labels[0, 1] = 5.0
    again = flm.users(replace(users, event_labels=labels), rows).hidden
    torch.testing.assert_close(again, found)


def test_the_states_of_edges_know_nothing_of_it():
    made, batch = one_step()
    made.model.eval()
    assert batch.users is not None
    rows = torch.randn(9, 8, requires_grad=True)
    states = made.model.flm.users(batch.users, rows).states
    states[0, 2].square().sum().backward()
    seen = batch.users.history[0, :2]
    later = batch.users.history[0, 2 : int(batch.users.num_events[0])]
    assert (rows.grad[seen].abs().sum(1) > 0).all()
    assert (rows.grad[later] == 0).all()


def test_padding_is_not_read():
    made, batch = one_step()
    made.model.eval()
    assert batch.users is not None
    users = replace(batch.users, num_events=torch.tensor([3, 3]), hidden=torch.tensor([[1], [0]]))
    rows = torch.randn(9, 8)
    before = made.model.flm.users(users, rows).hidden
    history = users.history.clone()
    history[:, 3:] = 0
    after = made.model.flm.users(replace(users, history=history), rows).hidden
    torch.testing.assert_close(after, before)


def test_every_parameter_of_the_history_gets_a_gradient():
    made, batch = one_step()
    cloze = made.model.objective.tasks["item_cloze"]
    cloze(made.model.flm(batch), batch).backward()
    for name, parameter in made.model.flm.history.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_loss_falls_where_an_item_lies_between_two_others():
    config = tiny_model.config(
        data={"users": 48, "window": 6},
        views={"width": 16},
        tasks={"rank": {}, "item_cloze": {"weight": 1.0}},
    )
    made = tiny_model.parts(config, tiny.dataset(tiny.cycles(users=48), repeats=True))
    losses = tiny_model.train(made, steps=80)[:, 1]
    assert losses[-10:].mean() < 0.3 * losses[:3].mean()
