import math

import pytest
import torch

from flm_torchrec.tasks.joint import joint_loss, log_both

CLICK, BOUGHT = 0.5, -1.0  # logits
BOTH = 1 / (1 + math.exp(-0.5)) / (1 + math.exp(1.0))


def test_logs_of_both_and_of_not_both_are_exact_at_the_ends():
    first = torch.tensor([0.5, 40.0, -40.0, 200.0, -200.0], requires_grad=True)
    second = torch.tensor([-1.0, 40.0, 0.0, 200.0, -200.0])
    yes, no = log_both(first, second)
    assert yes.tolist() == pytest.approx(
        [math.log(BOTH), -2 * math.exp(-40), -40 - math.log(2), 0.0, -400.0]
    )
    not_both = [math.log(1 - BOTH), math.log(2) - 40, 0.0, math.log(2) - 200, 0.0]
    assert no.tolist() == pytest.approx(not_both, abs=1e-5)
    (yes.sum() + no.sum()).backward()
    assert first.grad.isfinite().all()


@pytest.mark.parametrize(
    ("clicked", "bought", "is_known", "expected"),
    [
        (1.0, 1.0, True, -math.log(BOTH)),
        (1.0, 0.0, True, -math.log(1 - BOTH)),
        (0.0, 0.0, False, -math.log(1 - BOTH)),
        (1.0, 0.0, False, 0.0),
    ],
    ids=["both", "click alone", "no click", "unknown"],
)
def test_the_joint_loss_by_hand(clicked, bought, is_known, expected):
    logits = torch.tensor([CLICK]), torch.tensor([BOUGHT])
    labels = torch.tensor([clicked]), torch.tensor([bought])
    weights = torch.tensor([0.5]), torch.tensor([2.0 * is_known])
    assert joint_loss(logits, labels, weights).item() == pytest.approx(0.5 * expected)


def test_where_what_it_is_given_is_unknown_nothing_is_learned():
    logit = torch.tensor([1.0], requires_grad=True)
    nothing = torch.zeros(1)
    joint_loss((logit, logit), (nothing, nothing), (nothing, nothing)).backward()
    assert logit.grad.tolist() == [0.0]
