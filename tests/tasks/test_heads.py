import math

import pytest
import tiny
import tiny_model
import torch
from torch import nn
from torch.nn import functional as F

from flm_torchrec.tasks.heads import BinaryHead, Heads, OrdinalHead


def binary() -> BinaryHead:
    head = BinaryHead(2)
    with torch.no_grad():
        head.score.weight.copy_(torch.tensor([[1.0, -1.0]]))
        head.score.bias.fill_(0.5)
    return head


def ordinal() -> OrdinalHead:
    return OrdinalHead(2, levels=[1.0, 2.0, 5.0], counts=[1.0, 2.0, 1.0])


def test_binary_loss_and_prediction_by_hand():
    hidden = torch.tensor([[2.0, 1.0], [0.0, 1.0]])  # logits 1.5 and -0.5
    loss = binary().loss(hidden, torch.tensor([1.0, 0.0]))
    assert loss.tolist() == pytest.approx(
        [math.log(1 + math.exp(-1.5)), math.log(1 + math.exp(-0.5))]
    )
    expected = [1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(0.5))]
    assert binary().predict(hidden).tolist() == pytest.approx(expected)


def test_thresholds_start_at_the_labels_distribution():
    chances = ordinal().logits(torch.zeros(1, 2)).sigmoid()
    assert chances.tolist() == [pytest.approx([0.75, 0.25])]  # above 1, above 2
    expected = 0.25 * 1 + 0.5 * 2 + 0.25 * 5
    assert ordinal().predict(torch.zeros(1, 2)).item() == pytest.approx(expected)


def test_ordinal_loss_by_hand():
    hidden = torch.zeros(3, 2)
    low, middle, high = -math.log(0.25), -math.log(0.75), 0.0
    expected = [low + middle, 2 * middle, middle + low + high]
    assert ordinal().loss(hidden, torch.tensor([1.0, 2.0, 5.0])).tolist() == pytest.approx(expected)


def test_thresholds_stay_in_order_whatever_is_learned():
    head = ordinal()
    with torch.no_grad():
        head.threshold.fill_(3.0)
        head.log_gap.fill_(-5.0)
    logits = head.logits(torch.randn(4, 2))
    assert (logits.diff(dim=1) < 0).all()
    assert (head.predict(torch.randn(50, 2)) >= 1.0).all()


def test_a_rare_level_has_a_finite_threshold():
    head = OrdinalHead(2, levels=[1.0, 2.0, 3.0], counts=[0.0, 1e9, 1.0])
    assert head.logits(torch.zeros(1, 2)).isfinite().all()


def heads(names: dict[str, nn.Module], **more) -> Heads:
    torch.manual_seed(0)
    sizes = {"dim": 2, "feature_width": 3, "hidden": 8, "width": 2, "dropout": 0.0} | more
    return Heads(names, **sizes).eval()


# 1 user and 2 items of 2 dimensions; features: 1 of the user, 2 of the item.
STATES = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
ROW = torch.tensor([[0.0, 0.0], [0.5, 1.0], [2.0, 0.1]])
USER = torch.tensor([[7.0]])
ITEM = torch.tensor([[0.0, 0.0], [5.0, 6.0], [8.0, 9.0]])


def views():
    return tiny_model.views(states=STATES, row=ROW, user_features=USER, item_features=ITEM)


def batch(labels: torch.Tensor, label_weight: torch.Tensor):
    return tiny_model.batch([[1, 2]], item_row=[0, 1, 2], labels=labels, label_weight=label_weight)


def test_the_bottom_sees_state_item_their_product_and_the_features():
    made = heads({"like": BinaryHead(9)})
    made.bottom = nn.Identity()
    with torch.no_grad():
        made.head("like").score.weight.copy_(0.01 * torch.arange(1, 10)[None])
        made.head("like").score.bias.zero_()
    seen = torch.tensor(
        [[1, 2, 0.5, 1, 0.5, 2, 7, 5, 6], [3, 4, 2, 0.1, 6, 0.4, 7, 8, 9]], dtype=torch.float32
    )
    logit = seen @ (0.01 * torch.arange(1, 10))
    label, weight = torch.tensor([1.0, 0.0]), torch.tensor([0.25, 0.75])
    expected = (weight * F.binary_cross_entropy_with_logits(logit, label, reduction="none")).sum()
    torch.testing.assert_close(made(views(), batch(label[:, None], weight[:, None]))[0], expected)


def test_one_loss_a_label_in_the_order_of_the_names():
    made = heads({"like": binary(), "rating": ordinal()})
    labels = torch.tensor([[1.0, 5.0], [0.0, 1.0]])
    half = torch.full((2, 2), 0.5)
    losses = made(views(), batch(labels, half))
    assert made.names == ("like", "rating")
    only_like = heads({"like": binary()})
    only_like.load_state_dict(made.state_dict(), strict=False)
    torch.testing.assert_close(losses[:1], only_like(views(), batch(labels[:, :1], half[:, :1])))


def test_missing_labels_are_masked():
    made = heads({"like": binary(), "rating": ordinal()})
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    some, other = (
        made(views(), batch(torch.tensor(labels), weight))
        for labels in ([[1.0, 0.0], [0.0, 0.0]], [[1.0, 5.0], [1.0, 2.0]])
    )
    torch.testing.assert_close(some, other)
    assert some[0] > 0
    assert some[1] == 0


def test_a_label_may_have_the_name_of_a_modules_own_method():
    made = heads({"apply": binary(), "type": ordinal()})
    assert made.names == ("apply", "type")
    predictions = made.predict(STATES[0, :2], ROW[1:], torch.ones(2, 3))
    assert {name: tuple(p.shape) for name, p in predictions.items()} == {
        "apply": (2,),
        "type": (2,),
    }


def test_every_parameter_gets_a_gradient():
    made = heads({"like": BinaryHead(2), "rating": ordinal()})
    made(views(), batch(torch.tensor([[1.0, 5.0], [0.0, 1.0]]), torch.ones(2, 2))).sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
    assert all(p.grad.abs().sum() > 0 for p in made.heads.parameters())


def test_the_losses_fall_where_the_item_decides_the_label():
    config = tiny_model.config(data={"users": 6, "window": 6}, tasks={"heads": {"dropout": 0.0}})
    parts = tiny_model.parts(config, tiny.dataset(tiny.cycles()))
    losses = tiny_model.train(parts, steps=40)
    assert (losses[-5:].mean(0) < 0.2 * losses[:3].mean(0)).all()
