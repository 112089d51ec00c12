import math

import pytest
import torch

from flm_torchrec.views.mean_history import MeanHistory

D = 4


def test_weights_start_as_a_mixture_of_two_ranges_and_a_constant():
    weights = MeanHistory(D, window=4, event_width=0).weights(4)
    kernel = [0.7 * math.exp(-d / 15) + 0.3 * math.exp(-d / 3) + 0.03 for d in range(4)]
    assert kernel[0] == pytest.approx(1.03)
    expected = torch.zeros(5, 4)
    for state in range(1, 5):
        for event in range(state):
            expected[state, event] = kernel[state - 1 - event] / sum(kernel[:state])
    torch.testing.assert_close(weights, expected)


def test_a_state_is_the_weighted_mean_of_the_events_on_the_users_own_row_by_hand():
    made = MeanHistory(D, window=2, event_width=0).eval()
    with torch.no_grad():
        # An event with one later one weighs a third of the latest.
        made.log_share.copy_(torch.tensor([1.0, 0.0, 0.0]).log())
        made.log_range.copy_(torch.tensor([1 / math.log(3), 1.0]).log())
    user = torch.tensor([[1.0, 0, 0, 0]])
    events = torch.tensor([[[0, 4.0, 0, 0], [0, 0, 8.0, 0]]])
    states = made(user, events, torch.zeros(1, 2, 1), torch.zeros(1, 2), torch.tensor([2]))
    sums = torch.tensor([[1.0, 0, 0, 0], [1, 4, 0, 0], [1, 1, 6, 0]])
    torch.testing.assert_close(states[0], torch.nn.functional.layer_norm(sums, [D]))


def test_shorter_windows_than_the_longest_have_the_same_weights():
    made = MeanHistory(D, window=6, event_width=0)
    torch.testing.assert_close(made.weights(3), made.weights(6)[:4, :3])


def test_weights_add_up_to_1_wherever_training_takes_them():
    made = MeanHistory(D, window=50, event_width=0)
    with torch.no_grad():
        made.log_share.copy_(torch.tensor([-20.0, 3.0, -30.0]))
        made.log_range.copy_(torch.tensor([9.0, -6.0]))
    weights = made.weights(50)
    torch.testing.assert_close(weights.sum(1), torch.tensor([0.0] + [1.0] * 50))
