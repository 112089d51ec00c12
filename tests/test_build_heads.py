from dataclasses import replace

import numpy as np
import pytest
import tiny
import tiny_logs
import tiny_model
import torch

from flm_torchrec.build_heads import build_heads
from flm_torchrec.data.dataset import Dataset
from flm_torchrec.errors import UserError
from flm_torchrec.tasks.balance import Fixed, GradNorm, PCGrad, Uncertainty
from flm_torchrec.tasks.bottoms import PLE, Adapter, MMoE, SharedBottom
from flm_torchrec.tasks.cross import FM, DCNv2
from flm_torchrec.tasks.heads import BinaryHead, Heads, MulticlassHead, OrdinalHead, RealHead

DATASET = tiny.dataset()
HEADS = tiny_model.config(tasks={"heads": {}})


def test_there_is_a_head_for_each_label_fitted_on_training():
    heads = build_heads(HEADS, DATASET)
    assert heads.names == ("like", "rating")
    assert isinstance(heads.head("like"), BinaryHead)
    rating = heads.head("rating")
    assert isinstance(rating, OrdinalHead)
    assert rating.levels.tolist() == [1, 3, 5]
    train = DATASET.interactions.labels["rating"][DATASET.interactions.part == 0]
    train = train[~np.isnan(train)]
    above = rating.logits(torch.zeros(1, rating.score.in_features)).sigmoid()[0]
    assert above.tolist() == pytest.approx([(train > 1).mean(), (train > 3).mean()])


def test_heads_over_data_without_labels_are_the_users_mistake():
    with pytest.raises(UserError, match=r"tasks\.heads: the data's schema declares no labels"):
        build_heads(HEADS, tiny.dataset(labels=False))


def test_a_weight_for_an_unknown_label_is_the_users_mistake():
    config = tiny_model.config(tasks={"heads": {"weights": {"click": 1.0}}})
    with pytest.raises(UserError, match=r"tasks\.heads\.weights\.click: .*\['like', 'rating'\]"):
        build_heads(config, DATASET)


def test_a_head_is_of_its_labels_kind_and_fitted_on_training():
    labels = {"price": {"kind": "real"}, "kind": {"kind": "multiclass"}}
    dataset = tiny_logs.with_labels(DATASET, labels, price=3.0, kind=1.0)
    dataset = replace(
        dataset,
        moments={"price": (3.0, 2.0)},
        levels={"kind": np.array([1.0, 4.0], dtype=np.float32)},
    )
    heads = build_heads(HEADS, dataset)
    price, kind = heads.head("price"), heads.head("kind")
    assert isinstance(price, RealHead)
    assert (price.mean, price.std) == (3.0, 2.0)
    assert isinstance(kind, MulticlassHead)
    assert kind.levels.tolist() == [1.0, 4.0]


@pytest.mark.parametrize(("name", "kind"), [("none", type(None)), ("fm", FM), ("dcn", DCNv2)])
def test_the_cross_layer_is_chosen_by_name(name, kind):
    config = tiny_model.config(tasks={"heads": {"cross": name}})
    assert type(build_heads(config, tiny_logs.clicks()).edge_input.cross) is kind


@pytest.mark.parametrize(
    ("heads", "kind"),
    [
        ({}, SharedBottom),
        ({"bottom": "mmoe", "experts": 3}, MMoE),
        ({"bottom": "ple", "own_experts": 2, "layers": 2}, PLE),
    ],
)
def test_the_bottom_is_chosen_by_name(heads, kind):
    bottom = build_heads(tiny_model.config(tasks={"heads": heads}), DATASET).bottom
    assert type(bottom) is kind
    if isinstance(bottom, MMoE):
        assert len(bottom.experts) == 3
        assert len(bottom.gates) == 2
    if isinstance(bottom, PLE):
        assert len(bottom.layers) == 2
        assert [len(own) for own in bottom.layers[0].own] == [2, 2]
        assert len(bottom.layers[0].shared) == 4


def test_each_label_has_an_adapter_where_they_have_a_width():
    config = tiny_model.config(tasks={"heads": {"adapter": 5}})
    adapters = build_heads(config, DATASET).adapters
    assert [type(adapter) for adapter in adapters] == [Adapter, Adapter]
    assert adapters[0].down.out_features == 5


def test_a_biased_head_reads_the_features_beside_the_bottom():
    config = tiny_model.config(tasks={"heads": {"width": 16, "biases": ["rating"]}})
    heads = build_heads(config, DATASET)
    assert heads.head("like").score.in_features == 16
    assert heads.head("rating").score.in_features == 16 + 4 * 8  # two ids, gender and genres


def test_biases_of_nothing_are_the_users_mistake():
    lonely = tiny_logs.clicks()
    lonely = replace(lonely, interactions=replace(lonely.interactions, context={}))
    config = tiny_model.config(tasks={"heads": {"biases": ["click"]}})
    with pytest.raises(UserError, match=r"tasks\.heads\.biases: the data has no user, item or fea"):
        build_heads(config, lonely)


@pytest.mark.parametrize("field", ["biases", "joint"])
def test_a_label_that_the_data_lacks_is_the_users_mistake(field):
    config = tiny_model.config(tasks={"heads": {field: ["click"]}})
    with pytest.raises(UserError) as raised:
        build_heads(config, DATASET)
    told = f"tasks.heads.{field}.click: no such label; allowed: ['like', 'rating']"
    assert str(raised.value) == told


def bought(where: str | None, *, click: object = "binary", kind: str = "binary") -> Dataset:
    declared = {"click": click, "bought": {"kind": kind, "where": where}}
    return tiny_logs.with_labels(DATASET, declared, click=1.0, bought=1.0)


JOINT = tiny_model.config(tasks={"heads": {"joint": ["bought"]}})


@pytest.mark.parametrize(
    "dataset",
    [bought("click == 1"), bought("rating >= 4 and a == b", click="a == b and rating >= 4")],
    ids=["column", "predicate"],
)
def test_a_joint_label_is_given_the_one_that_its_where_names(dataset):
    assert build_heads(JOINT, dataset).joint == {"bought": "click"}


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        (bought(None), "has no 'where'"),
        (bought("click == 1", kind="real"), "is real"),
        (
            bought("click >= 1"),
            "has where: click >= 1, which is not what another binary label says",
        ),
        (
            bought("click == 1", click="real"),
            "has where: click == 1, which is not what another binary label says",
        ),
    ],
    ids=["no where", "not binary", "other words", "no binary label"],
)
def test_a_joint_label_of_no_other_label_is_the_users_mistake(dataset, reason):
    dataset = replace(dataset, moments=dict.fromkeys(("click", "bought"), (1.0, 1.0)))
    with pytest.raises(UserError) as raised:
        build_heads(JOINT, dataset)
    assert str(raised.value) == (
        f"tasks.heads.joint: 'bought' {reason}; allowed: a binary label whose 'where' is exactly "
        "the predicate of another binary label, or COLUMN == 1 of one without a predicate"
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [("fixed", Fixed), ("uncertainty", Uncertainty), ("gradnorm", GradNorm), ("pcgrad", PCGrad)],
)
def test_the_balance_is_chosen_by_name_and_trains(name, kind):
    config = tiny_model.config(
        data={"users": 6, "window": 6},
        tasks={"rank": {}, "heads": {"dropout": 0.0}, "balance": name},
    )
    parts = tiny_model.parts(config, tiny.dataset(tiny.cycles()))
    assert type(parts.model.objective.balance) is kind
    losses = tiny_model.train(parts, steps=40)
    assert (losses[-5:].mean(0) < 0.5 * losses[:3].mean(0)).all()


def test_every_parameter_of_balanced_mixtures_gets_a_gradient_in_each_step():
    heads = {"bottom": "ple", "adapter": 2, "biases": ["rating"], "dropout": 0.0}
    config = tiny_model.config(tasks={"rank": {}, "heads": heads, "balance": "gradnorm"})
    parts = tiny_model.parts(config, DATASET)
    for step in range(2):
        parts.model.zero_grad()
        losses, output = parts.model(parts.collator.step(parts.sampler, step))
        losses.sum().backward()
        for name, parameter in parts.model.named_parameters():
            assert parameter.grad is not None, name
        assert output.cosines.shape == (3, 3)
        assert output.task_weights.sum().item() == pytest.approx(3.0)


def test_labels_learned_together_on_all_edges_fall_together():
    """A click depends on device and hour, what is bought after one on the hour alone."""
    clicks = tiny_logs.clicks(200)
    met = clicks.interactions
    labels = {"click": {"kind": "binary"}, "bought": {"kind": "binary", "where": "click == 1"}}
    bought = np.where(met.labels["click"] > 0, met.context["hour"].values > 1, np.nan)
    dataset = tiny_logs.with_labels(clicks, labels, click=0.0, bought=0.0)
    dataset.interactions.labels["click"] = met.labels["click"]
    dataset.interactions.labels["bought"] = bought.astype(np.float32)
    config = tiny_model.config(
        data={"rows": 64, "window": 0}, tasks={"heads": {"dropout": 0.0, "joint": ["bought"]}}
    )
    losses = tiny_model.train(tiny_model.parts(config, dataset), steps=60)
    assert (losses[-5:].mean(0) < 0.3 * losses[:3].mean(0)).all()


def test_a_real_label_that_never_changes_trains():
    dataset = tiny_logs.with_labels(tiny.dataset(), {"price": {"kind": "real"}}, price=0.1)
    constant = float(np.float32(0.1))
    dataset = replace(dataset, moments={"price": (constant, 0.0)})
    parts = tiny_model.parts(HEADS, dataset)
    losses = tiny_model.train(parts, steps=20)
    assert losses.isfinite().all()
    assert losses[-1] < losses[0]
    batch = parts.collator.step(parts.sampler, 0)
    heads = parts.model.objective.tasks["heads"]
    assert isinstance(heads, Heads)
    predicted = heads.predict(parts.model.flm(batch), batch)["price"]
    assert predicted.tolist() == pytest.approx([constant] * len(predicted), abs=1e-4)
