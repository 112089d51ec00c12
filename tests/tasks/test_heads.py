import math
from dataclasses import replace

import pytest
import tiny
import tiny_model
import torch
from torch import nn
from torch.nn import functional as F

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.model import Views
from flm_torchrec.tasks.cross import FM, DCNv2
from flm_torchrec.tasks.heads import (
    BinaryHead,
    Head,
    Heads,
    Inputs,
    MulticlassHead,
    OrdinalHead,
    RealHead,
)


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


def test_real_loss_and_prediction_by_hand():
    head = RealHead(2, mean=10.0, std=4.0)
    with torch.no_grad():
        head.score.weight.copy_(torch.tensor([[1.0, -1.0]]))
        head.score.bias.fill_(0.5)
    hidden = torch.tensor([[2.0, 1.0], [0.0, 1.0]])  # scores 1.5 and -0.5
    assert head.loss(hidden, torch.tensor([10.0, 12.0])).tolist() == pytest.approx([2.25, 1.0])
    assert head.predict(hidden).tolist() == [16.0, 8.0]


def test_multiclass_loss_and_prediction_by_hand():
    head = MulticlassHead(2, levels=[3.0, 5.0, 9.0])
    with torch.no_grad():
        head.score.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
        head.score.bias.zero_()
    hidden = torch.tensor([[2.0, 1.0], [0.0, 1.0]])  # scores (2, 1, 0) and (0, 1, 0)
    first = math.log(math.exp(2) + math.exp(1) + 1)
    second = math.log(math.exp(1) + 2)
    loss = head.loss(hidden, torch.tensor([5.0, 9.0]))
    assert loss.tolist() == pytest.approx([first - 1, second])
    assert head.predict(hidden).tolist() == [3.0, 5.0]


def test_a_missing_class_has_a_finite_loss():
    """0 stands for it, which may lie outside all levels."""
    for levels in ([1.0, 2.0], [-2.0, -1.0]):
        head = MulticlassHead(2, levels=levels)
        assert head.loss(torch.ones(1, 2), torch.tensor([0.0])).isfinite().all()


# 1 user and 2 items of 2 dimensions; features: 1 of the user, 2 of the item.
STATES = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
ROW = torch.tensor([[0.0, 0.0], [0.5, 1.0], [2.0, 0.1]])
USER = torch.tensor([[[7.0, 0.5]]])
ITEM = torch.tensor([[[0.0, 0.0]] * 2, [[5.0, 6.0], [1.0, 1.0]], [[8.0, 9.0], [2.0, 2.0]]])
INPUTS = Inputs(dim=2, has_user=True, has_item=True, num_features=3, num_numbers=0)


def heads(names: dict[str, Head], inputs: Inputs = INPUTS, **more) -> Heads:
    torch.manual_seed(0)
    return Heads(names, inputs, **({"hidden": 8, "width": 2, "dropout": 0.0} | more)).eval()


def views() -> Views:
    return tiny_model.views(states=STATES, row=ROW, user_features=USER, item_features=ITEM)


def batch(labels: torch.Tensor, label_weight: torch.Tensor) -> FLMBatch:
    return tiny_model.batch([[1, 2]], item_row=[0, 1, 2], labels=labels, label_weight=label_weight)


NO_LABELS = torch.zeros(2, 0)
SEEN = torch.tensor(
    [
        [1, 2, 0.5, 1, 0.5, 2, 7, 0.5, 5, 6, 1, 1],
        [3, 4, 2, 0.1, 6, 0.4, 7, 0.5, 8, 9, 2, 2],
    ]
)  # state, item, state * item, user features, item features


def test_the_bottom_sees_state_item_their_product_and_their_features():
    made = heads({"like": BinaryHead(12)})
    torch.testing.assert_close(made.seen(views(), batch(NO_LABELS, NO_LABELS)), SEEN)
    made.bottom = nn.Identity()
    with torch.no_grad():
        made.head("like").score.weight.copy_(0.01 * torch.arange(1, 13)[None])
        made.head("like").score.bias.zero_()
    logit = SEEN @ (0.01 * torch.arange(1, 13))
    label, weight = torch.tensor([1.0, 0.0]), torch.tensor([0.25, 0.75])
    expected = (weight * F.binary_cross_entropy_with_logits(logit, label, reduction="none")).sum()
    torch.testing.assert_close(made(views(), batch(label[:, None], weight[:, None]))[0], expected)


def with_context_and_numbers() -> tuple[Views, FLMBatch]:
    hand = batch(NO_LABELS, NO_LABELS)
    hand = replace(
        hand,
        edges=replace(hand.edges, numbers=torch.tensor([[0.1], [0.2]])),
        users=replace(hand.users, numbers=torch.tensor([[0.3]])),
        items=replace(hand.items, numbers=torch.tensor([[0.0, 0.0], [0.4, 0.5], [0.6, 0.7]])),
    )
    return replace(views(), context=torch.tensor([[[3.0, 4.0]], [[5.0, 6.0]]])), hand


CONTEXT = torch.tensor([[3.0, 4.0], [5.0, 6.0]])
NUMBERS = torch.tensor([[0.1, 0.3, 0.4, 0.5], [0.2, 0.3, 0.6, 0.7]])
EVERYTHING = Inputs(dim=2, has_user=True, has_item=True, num_features=4, num_numbers=4)


def test_the_bottom_sees_the_context_and_all_numbers():
    made = heads({"like": binary()}, EVERYTHING)
    seen = made.seen(*with_context_and_numbers())
    torch.testing.assert_close(seen, torch.cat([SEEN, CONTEXT, NUMBERS], dim=1))
    assert made.bottom[0].in_features == seen.shape[1]


def test_a_cross_layer_takes_the_place_of_the_features():
    """It sees them, the state, the item and a vector of the numbers and a constant."""
    cross = FM(num_vectors=EVERYTHING.num_vectors)
    made = heads({"like": binary()}, EVERYTHING, cross=cross)
    seen = made.seen(*with_context_and_numbers())
    constant = made.numbers(torch.cat([torch.ones(2, 1), NUMBERS], dim=1))
    vectors = torch.cat([SEEN[:, 6:], CONTEXT, SEEN[:, :4], constant], dim=1).unflatten(1, (-1, 2))
    torch.testing.assert_close(seen, torch.cat([SEEN[:, :6], cross(vectors), NUMBERS], dim=1))
    assert made.bottom[0].in_features == seen.shape[1]


@pytest.mark.parametrize("cross", [None, FM(num_vectors=2), DCNv2(num_vectors=2, dim=2)])
def test_context_alone_is_enough(cross):
    inputs = Inputs(dim=2, has_user=False, has_item=False, num_features=1, num_numbers=3)
    made = heads({"like": binary()}, inputs, cross=cross)
    hand = batch(torch.tensor([[1.0], [0.0]]), torch.full((2, 1), 0.5))
    hand = replace(
        hand, users=None, items=None, edges=replace(hand.edges, numbers=torch.rand(2, 3))
    )
    known = Views(context=torch.rand(2, 1, 2))
    assert made(known, hand).isfinite().all()
    assert made.predict(known, hand)["like"].shape == (2,)


def test_items_without_users_have_no_product():
    inputs = Inputs(dim=2, has_user=False, has_item=True, num_features=2, num_numbers=0)
    made = heads({"like": binary()}, inputs)
    hand = replace(batch(NO_LABELS, NO_LABELS), users=None)
    seen = made.seen(replace(views(), users=None), hand)
    torch.testing.assert_close(seen, SEEN[:, [2, 3, 8, 9, 10, 11]])


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
    predictions = made.predict(views(), batch(NO_LABELS, NO_LABELS))
    assert {name: tuple(p.shape) for name, p in predictions.items()} == {
        "apply": (2,),
        "type": (2,),
    }


@pytest.mark.parametrize("cross", [None, FM(num_vectors=6), DCNv2(num_vectors=6, dim=2)])
def test_every_parameter_gets_a_gradient(cross):
    inputs = replace(INPUTS, num_numbers=1)
    names = {
        "like": BinaryHead(2),
        "rating": ordinal(),
        "price": RealHead(2, mean=1.0, std=2.0),
        "kind": MulticlassHead(2, levels=[0.0, 1.0]),
    }
    made = heads(names, inputs, cross=cross, hidden=32)
    hand = batch(torch.tensor([[1.0, 5.0, 3.0, 1.0], [0.0, 1.0, 0.0, 0.0]]), torch.ones(2, 4))
    hand = replace(hand, edges=replace(hand.edges, numbers=torch.tensor([[0.5], [1.0]])))
    made(views(), hand).sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
    assert all(p.grad.abs().sum() > 0 for p in made.heads.parameters())


def test_the_losses_fall_where_the_item_decides_the_label():
    config = tiny_model.config(data={"users": 6, "window": 6}, tasks={"heads": {"dropout": 0.0}})
    parts = tiny_model.parts(config, tiny.dataset(tiny.cycles()))
    losses = tiny_model.train(parts, steps=40)
    assert (losses[-5:].mean(0) < 0.2 * losses[:3].mean(0)).all()


@pytest.mark.parametrize("cross", ["fm", "dcn"])
def test_the_losses_fall_through_a_cross_layer(cross):
    heads = {"dropout": 0.0, "cross": cross}
    config = tiny_model.config(data={"users": 6, "window": 6}, tasks={"heads": heads})
    parts = tiny_model.parts(config, tiny.dataset(tiny.cycles()))
    losses = tiny_model.train(parts, steps=40)
    assert (losses[-5:].mean(0) < 0.3 * losses[:3].mean(0)).all()
