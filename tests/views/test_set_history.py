import pytest
import torch

from flm_torchrec.views.set_history import SetHistory

U, L, D = 3, 5, 8
COUNT = torch.tensor([L, 3, 0])


def history(**more) -> SetHistory:
    torch.manual_seed(0)
    return SetHistory(D, event_width=2, **more).eval()


def inputs() -> tuple[torch.Tensor, ...]:
    """Users with 5, 3 and no events."""
    generator = torch.Generator().manual_seed(1)
    user, events, labels = (
        torch.randn(shape, generator=generator) for shape in [(U, D), (U, L, D), (U, L, 2)]
    )
    return user, events, labels, torch.zeros(U, L), COUNT


def test_there_is_a_state_without_each_event_and_one_of_all():
    assert history()(*inputs()).shape == (U, L + 1, D)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_a_state_depends_on_every_event_but_the_one_of_its_place(layers):
    made, (user, events, labels, gap, count) = history(layers=layers), inputs()
    events.requires_grad_()
    labels.requires_grad_()
    states = made(user, events, labels, gap, count)
    for row, step in [(row, step) for row in range(U) for step in range(L + 1)]:
        sees = [event != step and event < int(count[row]) for event in range(L)]
        state = (states[row, step] * torch.arange(D)).square().sum()
        for given in torch.autograd.grad(state, (events, labels), retain_graph=True):
            assert (given[row].abs().amax(1) > 0).tolist() == sees
            assert given[[other for other in range(U) if other != row]].abs().sum() == 0


def test_a_state_does_not_change_with_the_event_of_its_place():
    made, (user, events, labels, gap, count) = history(), inputs()
    before = made(user, events, labels, gap, count)
    for step in range(L):
        changed, told = events.clone(), labels.clone()
        changed[:, step] += 1 + torch.arange(D)
        told[:, step] -= 5
        after = made(user, changed, told, gap, count)
        assert after[:, step].equal(before[:, step])
        others = [place for place in range(L + 1) if place != step]
        assert ((after[0, others] - before[0, others]).abs().amax(1) > 1e-3).all()


def test_events_in_another_order_have_the_states_in_that_order():
    made, (user, events, labels, gap, count) = history(), inputs()
    states = made(user, events, labels, gap, count)
    order = torch.tensor([2, 0, 1, 4, 3])  # the events of the second user, who has 3, stay in front
    moved = made(user, events[:, order], labels[:, order], gap, count)
    torch.testing.assert_close(moved[:, :L], states[:, :L][:, order])
    torch.testing.assert_close(moved[:, L], states[:, L])


def test_from_the_last_event_on_states_are_of_all_events():
    states = history()(*inputs())
    torch.testing.assert_close(states[1, 3:], states[1, 3:4].expand(3, D))
    assert (states[1, :3] - states[1, 3]).abs().amax(1).min() > 1e-3


def test_without_events_every_state_is_the_cold_user():
    made, (user, events, labels, gap, count) = history(), inputs()
    states = made(user, events, labels, gap, count)
    torch.testing.assert_close(states[2], states[2, :1].expand(L + 1, D))
    alone = made(user, events, labels, gap, torch.tensor([1, 0, 0]))
    torch.testing.assert_close(alone[0, 0], made(user, events, labels, gap, 0 * count)[0, 0])


def test_padding_changes_nothing():
    made, (user, events, labels, gap, _) = history(), inputs()
    count = torch.tensor([3, 3, 2])
    short = made(user, events[:, :3], labels[:, :3], gap[:, :3], count)
    torch.testing.assert_close(made(user, events, labels, gap, count)[:, :4], short)


def test_the_pooling_of_one_head_by_hand():
    made = SetHistory(1, event_width=0, layers=1, heads=1, dropout=0.0)
    block = made.blocks[0]
    with torch.no_grad():
        block.norm.bias.fill_(1.0)  # of one number a norm leaves its bias
        for linear in (block.query, block.key_value, block.out):
            linear.weight.fill_(1.0)
            linear.bias.zero_()
        block.feed_forward[-1].weight.zero_()
        block.feed_forward[-1].bias.zero_()
    seen = torch.tensor([[[1.0], [2.0], [4.0]]])
    may_see = torch.tensor([[True, False, True], [True, True, False], [True, True, True]])
    states = block(torch.zeros(1, 3, 1), seen, may_see[None, None]).flatten()
    for state, numbers in zip(states, ([1.0, 4.0], [1.0, 2.0], [1.0, 2.0, 4.0]), strict=True):
        visible = torch.tensor(numbers)
        torch.testing.assert_close(state, (visible.softmax(0) * visible).sum())


def test_dropout_is_off_in_evaluation_and_on_in_training():
    made = history(dropout=0.5)
    torch.testing.assert_close(made(*inputs()), made(*inputs()))
    made.train()
    assert (made(*inputs()) - made(*inputs())).abs().max() > 0.1


def test_what_events_told_is_read_only_where_asked_for():
    torch.manual_seed(0)
    made = SetHistory(D, event_width=0).eval()
    user, events, labels, gap, count = inputs()
    expected = made(user, events, labels, gap, count)
    assert made(user, events, labels + 1, gap, count).equal(expected)


def test_every_parameter_gets_a_gradient():
    made = history()
    (made(*inputs()) * torch.arange(D)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in made.parameters())
