import pytest
import torch

from flm_torchrec.views.history import CausalAttention, CausalHistory, History
from flm_torchrec.views.mean_history import MeanHistory

U, L, D = 2, 5, 8
KINDS = [CausalHistory, MeanHistory]


def history(kind: type[History] = CausalHistory, **more) -> History:
    torch.manual_seed(0)
    return kind(D, window=L, event_width=2, gaps=True, **more).eval()


def inputs() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    user, events, labels = (
        torch.randn(shape, generator=generator) for shape in [(U, D), (U, L, D), (U, L, 2)]
    )
    return user, events, labels, torch.rand(U, L, generator=generator), torch.full((U,), L)


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_a_state_after_0_to_l_events(kind):
    assert history(kind)(*inputs()).shape == (U, L + 1, D)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", range(L))
def test_a_state_does_not_change_with_the_events_from_its_step_on(kind, step):
    made, (user, events, labels, gap, count) = history(kind), inputs()
    before = made(user, events, labels, gap, count)
    changed_events, changed_labels, changed_gap = events.clone(), labels.clone(), gap.clone()
    changed_events[:, step:] += 1 + torch.arange(D)
    changed_labels[:, step:] -= 1
    changed_gap[:, step:] = 1 - changed_gap[:, step:]
    after = made(user, changed_events, changed_labels, changed_gap, count)
    torch.testing.assert_close(after[:, : step + 1], before[:, : step + 1])
    assert ((after[:, step + 1 :] - before[:, step + 1 :]).abs().amax(2) > 1e-3).all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_reaches_an_event_that_is_yet_to_come(kind):
    made, (user, events, labels, gap, count) = history(kind), inputs()
    events.requires_grad_()
    labels.requires_grad_()
    states = made(user, events, labels, gap, count)
    for step in range(L + 1):
        state = (states[:, step] * torch.arange(D)).square().sum()
        for given in torch.autograd.grad(state, (events, labels), retain_graph=True):
            assert (given[:, step:] == 0).all()
            assert (given[:, :step].abs().amax(2) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_state_0_depends_on_the_user_alone(kind):
    made, (user, events, labels, gap, count) = history(kind), inputs()
    state = made(user, events, labels, gap, count)[:, 0]
    torch.testing.assert_close(made(user, -events, labels + 1, 1 - gap, count)[:, 0], state)
    assert (made(user.flip(1), events, labels, gap, count)[:, 0] - state).abs().max() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_sees_every_event_before_it_what_it_told_and_when_it_was(kind):
    made, (user, events, labels, gap, count) = history(kind), inputs()
    last = made(user, events, labels, gap, count)[:, -1]
    for place in range(L):
        changed = events.clone()
        changed[:, place] += torch.arange(D)
        assert (made(user, changed, labels, gap, count)[:, -1] - last).abs().max() > 1e-3
        told = labels.clone()
        told[:, place] += 5
        assert (made(user, events, told, gap, count)[:, -1] - last).abs().max() > 1e-3
        later = gap.clone()
        later[:, place] = 1 - later[:, place]
        assert (made(user, events, labels, later, count)[:, -1] - last).abs().max() > 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_change_the_states_before_it(kind):
    made, (user, events, labels, gap, count) = history(kind), inputs()
    padded_events, padded_labels = events.clone(), labels.clone()
    padded_events[:, 3:], padded_labels[:, 3:] = 0, 0
    count = count.clamp(max=3)
    short = made(user, events[:, :3], labels[:, :3], gap[:, :3], count)
    torch.testing.assert_close(made(user, padded_events, padded_labels, gap, count)[:, :4], short)


@pytest.mark.parametrize("kind", KINDS)
def test_users_do_not_see_each_other(kind):
    made, given = history(kind), inputs()
    alone = made(*(tensor[:1] for tensor in given))
    torch.testing.assert_close(made(*given)[:1], alone)


@pytest.mark.parametrize("kind", KINDS)
def test_what_events_told_and_gaps_are_read_only_where_asked_for(kind):
    torch.manual_seed(0)
    made = kind(D, window=L, event_width=0).eval()
    assert not [name for name, _ in made.named_parameters() if name.startswith(("event", "gap"))]
    user, events, labels, gap, count = inputs()
    expected = made(user, events, labels, gap, count)
    assert made(user, events, labels + 1, 1 - gap, count).equal(expected)


def test_gaps_are_read_by_their_power_of_time():
    made = history()
    seconds = torch.tensor([[0.0, 1.0, 60.0, 3600.0, 4000.0, 86400.0, 3e9]])
    gap = torch.log1p(seconds) / 20
    bucket = [0, 1, 6, 13, 13, 18, 31]
    zeros = torch.zeros(1, 7, D)
    read = made.read(zeros, torch.zeros(1, 7, 2), gap)
    torch.testing.assert_close(read[0], made.gap.weight[bucket])


def test_attention_starts_by_weighing_near_events_more():
    attention = CausalAttention(D, heads=2, max_length=4, dropout=0.0)
    torch.testing.assert_close(
        attention.distance_bias, -torch.tensor([[1 / 16], [1 / 256]]) * torch.arange(4)
    )


def test_attention_of_one_head_by_hand():
    attention = CausalAttention(1, heads=1, max_length=2, dropout=0.0)
    with torch.no_grad():
        attention.qkv.weight.copy_(torch.tensor([[1.0], [1.0], [1.0]]))
        attention.qkv.bias.zero_()
        attention.out.weight.fill_(1.0)
        attention.out.bias.zero_()
        attention.distance_bias.copy_(torch.tensor([[0.0, -0.5]]))
    out = attention(torch.tensor([[[1.0], [2.0]]]))
    weight = torch.tensor([2.0 * 1.0 - 0.5, 2.0 * 2.0]).softmax(0)
    torch.testing.assert_close(
        out.flatten(), torch.stack([torch.tensor(1.0), weight[0] + 2 * weight[1]])
    )


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_off_in_evaluation_and_on_in_training(kind):
    made = history(kind, dropout=0.5)
    torch.testing.assert_close(made(*inputs()), made(*inputs()))
    made.train()
    assert (made(*inputs()) - made(*inputs())).abs().max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind):
    made = history(kind)
    (made(*inputs()) * torch.arange(D)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in made.parameters())


def test_every_distance_gets_a_gradient():
    made = history()
    (made(*inputs()) * torch.arange(D)).square().sum().backward()
    assert all(block.attention.distance_bias.grad.abs().min() > 0 for block in made.blocks)


@pytest.mark.parametrize("kind", [CausalHistory, MeanHistory])
def test_a_class_that_an_event_told_has_a_vector_of_its_own(kind):
    torch.manual_seed(0)
    made = kind(1, window=4, event_width=2, classes={1: 3})
    with torch.no_grad():
        made.event.weight.fill_(10.0)
        made.class_rows[0].weight[:, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    nan = float("nan")
    told = torch.tensor([[[0.5, 0.0], [nan, 2.0], [0.0, nan], [-1.0, 1.0]]])
    read = made.read(torch.full((1, 4, 1), 100.0), told, torch.zeros(1, 4))
    assert read.flatten().tolist() == [107.0, 104.0, 101.0, 93.0]
