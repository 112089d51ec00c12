import pytest
import torch

from flm_torchrec.views.history import CausalAttention, CausalHistory

U, L, D = 2, 5, 8


def history(**more) -> CausalHistory:
    torch.manual_seed(0)
    return CausalHistory(D, window=L, event_width=2, **more).eval()


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randn(shape, generator=generator) for shape in [(U, D), (U, L, D), (U, L, 2)]
    )


def test_there_is_a_state_after_0_to_l_events():
    assert history()(*inputs()).shape == (U, L + 1, D)


@pytest.mark.parametrize("step", range(L))
def test_a_state_does_not_change_with_the_events_from_its_step_on(step):
    made, (user, events, labels) = history(), inputs()
    before = made(user, events, labels)
    changed_events, changed_labels = events.clone(), labels.clone()
    changed_events[:, step:] += 1 + torch.arange(D)
    changed_labels[:, step:] -= 1
    after = made(user, changed_events, changed_labels)
    torch.testing.assert_close(after[:, : step + 1], before[:, : step + 1])
    assert ((after[:, step + 1 :] - before[:, step + 1 :]).abs().amax(2) > 1e-3).all()


def test_state_0_depends_on_the_user_alone():
    made, (user, events, labels) = history(), inputs()
    state = made(user, events, labels)[:, 0]
    torch.testing.assert_close(made(user, -events, labels + 1)[:, 0], state)
    assert (made(user.flip(1), events, labels)[:, 0] - state).abs().max() > 1e-2


def test_a_state_sees_every_event_before_it_and_what_it_told():
    made, (user, events, labels) = history(), inputs()
    last = made(user, events, labels)[:, -1]
    for place in range(L):
        changed = events.clone()
        changed[:, place] += torch.arange(D)
        assert (made(user, changed, labels)[:, -1] - last).abs().max() > 1e-3
        told = labels.clone()
        told[:, place] += 5
        assert (made(user, events, told)[:, -1] - last).abs().max() > 1e-3


def test_padding_does_not_change_the_states_before_it():
    made, (user, events, labels) = history(), inputs()
    padded_events, padded_labels = events.clone(), labels.clone()
    padded_events[:, 3:], padded_labels[:, 3:] = 0, 0
    short = made(user, events[:, :3], labels[:, :3])
    torch.testing.assert_close(made(user, padded_events, padded_labels)[:, :4], short)


def test_users_do_not_see_each_other():
    made, (user, events, labels) = history(), inputs()
    alone = made(user[:1], events[:1], labels[:1])
    torch.testing.assert_close(made(user, events, labels)[:1], alone)


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


def test_dropout_is_off_in_evaluation_and_on_in_training():
    made = history(dropout=0.5)
    torch.testing.assert_close(made(*inputs()), made(*inputs()))
    made.train()
    assert (made(*inputs()) - made(*inputs())).abs().max() > 0.1


def test_every_parameter_gets_a_gradient():
    made = history()
    (made(*inputs()) * torch.arange(D)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
    assert all(block.attention.distance_bias.grad.abs().min() > 0 for block in made.blocks)
