import math
from dataclasses import replace

import pytest
import tiny
import tiny_model
import torch
from tiny_edges import INPUTS, NO_LABELS, SEEN, AsSeen, batch, heads, views
from torch.nn import functional as F

from flm_torchrec.tasks.bottoms import PLE, MMoE, SharedBottom
from flm_torchrec.tasks.cross import FM, DCNv2
from flm_torchrec.tasks.heads import (
    BinaryHead,
    Heads,
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


def test_a_head_reads_what_the_bottom_makes_of_the_edge():
    made = heads({"like": BinaryHead(12)}, bottom=AsSeen(1))
    with torch.no_grad():
        made.head("like").score.weight.copy_(0.01 * torch.arange(1, 13)[None])
        made.head("like").score.bias.zero_()
    logit = SEEN @ (0.01 * torch.arange(1, 13))
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


def test_an_adapter_is_a_labels_own():
    made = heads({"like": binary(), "rating": ordinal()}, adapter=3)
    plain = heads({"like": binary(), "rating": ordinal()})
    plain.load_state_dict(made.state_dict(), strict=False)
    hand = batch(NO_LABELS, NO_LABELS)
    before = plain.predict(views(), hand)
    assert made.predict(views(), hand)["like"].tolist() == before["like"].tolist()
    with torch.no_grad():
        made.adapters[0].up.bias.copy_(torch.tensor([1.0, 0.0]))
    after = made.predict(views(), hand)
    assert (after["like"] != before["like"]).all()
    assert after["rating"].tolist() == before["rating"].tolist()


def test_a_biased_label_is_linear_in_the_embeddings_of_all_features():
    named = {"like": BinaryHead(2), "price": RealHead(2 + 6, mean=10.0, std=2.0)}
    made = heads(named, biased=["price"])
    score = made.head("price").score
    with torch.no_grad():
        score.weight.copy_(torch.tensor([[0, 0, 0.1, 0, 0, 0.2, 0, 0.3]]))
        score.bias.fill_(0.5)
    # The user's first entry, the second of the item's first feature and of its second.
    expected = [
        10 + 2 * (0.5 + 0.1 * 7 + 0.2 * 6 + 0.3 * 1),
        10 + 2 * (0.5 + 0.1 * 7 + 0.2 * 9 + 0.3 * 2),
    ]
    predictions = made.predict(views(), batch(NO_LABELS, NO_LABELS))
    assert predictions["price"].tolist() == pytest.approx(expected)
    assert predictions["like"].shape == (2,)


CLICK, BOUGHT = 0.5, -1.0  # logits
P_CLICK, P_BOUGHT = 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(1.0))


def conditional() -> Heads:
    made = heads({"click": BinaryHead(2), "bought": BinaryHead(2)}, joint={"bought": "click"})
    with torch.no_grad():
        for name, logit in (("click", CLICK), ("bought", BOUGHT)):
            made.head(name).score.weight.zero_()
            made.head(name).score.bias.fill_(logit)
    return made


def test_l2_holds_back_the_embeddings_of_the_edges_that_a_label_counts():
    named = {"like": BinaryHead(2), "rating": RealHead(2, mean=0.0, std=1.0)}
    weights = torch.tensor([[0.5, 0.0], [0.25, 1.0]])
    told = views(), batch(torch.zeros(2, 2), weights)
    free, held = (heads(named, l2=l2)(*told) for l2 in (0.0, 0.1))
    lengths = [49.25 + 61 + 2, 49.25 + 145 + 8]  # of the user's embeddings and the item's
    expected = [0.1 * (0.5 * lengths[0] + 0.25 * lengths[1]), 0.1 * lengths[1]]
    assert (held - free).tolist() == pytest.approx(expected)


def test_a_conditional_label_is_predicted_given_the_other_and_with_it():
    made, hand = conditional(), batch(NO_LABELS, NO_LABELS)
    assert made.predict(views(), hand)["bought"].tolist() == pytest.approx([P_BOUGHT] * 2)
    both = made.predict_joint(views(), hand)
    assert both.keys() == {"bought"}
    assert both["bought"].tolist() == pytest.approx([P_CLICK * P_BOUGHT] * 2)


def test_the_loss_of_a_joint_label_is_that_of_both():
    """Bought after a click, and no click: where is no purchase is known without its label."""
    hand = batch(torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[0.5, 1.0], [0.5, 0.0]]))
    expected = -0.5 * math.log(P_CLICK * P_BOUGHT) - 0.5 * math.log(1 - P_CLICK * P_BOUGHT)
    assert conditional()(views(), hand)[1].item() == pytest.approx(expected)


def test_a_joint_label_teaches_the_label_that_it_is_given_as_well():
    made = conditional()
    made(views(), batch(torch.ones(2, 2), torch.ones(2, 2)))[1].backward()
    for name in made.names:
        assert made.head(name).score.bias.grad.abs().sum() > 0


@pytest.mark.parametrize("bottom", ["shared", "mmoe", "ple"])
@pytest.mark.parametrize("joint", [{}, {"bought": "click"}], ids=["each", "joint"])
def test_a_batch_without_labels_has_losses_and_gradients_of_0(bottom, joint):
    size = {"num_tasks": 4, "hidden": 3, "width": 2, "dropout": 0.0}
    bottoms = {
        "shared": lambda: SharedBottom(12, **size),
        "mmoe": lambda: MMoE(12, experts=2, **size),
        "ple": lambda: PLE(12, experts=1, own_experts=1, num_layers=2, **size),
    }
    named = {
        "click": BinaryHead(2),
        "bought": BinaryHead(2),
        "rating": ordinal(),
        "price": RealHead(2, mean=1.0, std=2.0),
    }
    made = heads(named, bottom=bottoms[bottom](), adapter=2, joint=joint)
    losses = made(views(), batch(torch.zeros(2, 4), torch.zeros(2, 4)))
    assert losses.tolist() == [0.0] * 4
    losses.sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() == 0, name


def test_a_real_label_that_never_changes_is_predicted_and_has_no_loss():
    head = RealHead(2, mean=0.1, std=1e-6)
    hidden = torch.randn(3, 2)
    assert head.predict(hidden).tolist() == pytest.approx([0.1] * 3, abs=1e-4)
    label = torch.full((3,), 0.1)
    with torch.no_grad():
        head.score.weight.zero_()
        head.score.bias.zero_()
    assert head.loss(hidden, label).tolist() == [0.0] * 3
