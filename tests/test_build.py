from dataclasses import replace

import numpy as np
import pytest
import tiny
import tiny_logs
import tiny_model

from flm_torchrec.build import build_flm, build_model, dense_optimizer
from flm_torchrec.errors import UserError
from flm_torchrec.tasks.ranking import LoggedRanking, Ranking
from flm_torchrec.trainable import FLMTrain
from flm_torchrec.views.fusion import GatedFusion, MeanFusion, WeightedFusion

DATASET = tiny.dataset()
HEADS = tiny_model.config(tasks={"heads": {}})


def test_tables_have_the_sizes_of_the_data(encoder_folder):
    flm = build_flm(HEADS, DATASET, None)
    shapes = {name: tuple(p.shape) for name, p in flm.named_parameters() if ".ebc." in name}
    assert shapes == {
        "user_view.ebc.embedding_bags.users_user_id.weight": (7, 8),
        "user_view.ebc.embedding_bags.users_gender.weight": (3, 8),
        "item_view.ebc.embedding_bags.items_item_id.weight": (9, 8),
        "item_view.ebc.embedding_bags.items_genres.weight": (4, 8),
    }
    configs = flm.item_view.ebc.embedding_bag_configs()
    assert {c.name: c.pooling.value for c in configs} == {
        "items_item_id": "SUM",
        "items_genres": "MEAN",
    }


@pytest.mark.parametrize(
    ("name", "kind"), [("mean", MeanFusion), ("weighted", WeightedFusion), ("gated", GatedFusion)]
)
def test_the_fusion_is_chosen_by_name(name, kind):
    config = tiny_model.config(views={"fusion": name, "view_dropout": 0.25})
    fusion = build_flm(config, DATASET, None).fusion
    assert type(fusion) is kind
    assert fusion.view_dropout == 0.25


@pytest.mark.parametrize("repeats", [True, False])
def test_seen_items_are_masked_where_nobody_meets_an_item_twice(repeats):
    parts = tiny_model.parts(tiny_model.config(), tiny.dataset(repeats=repeats))
    task = parts.model.objective.tasks["rank"]
    assert isinstance(task, Ranking)
    assert task.mask_seen is not repeats


def test_a_model_without_labels_or_text_trains():
    parts = tiny_model.parts(tiny_model.config(), tiny.dataset(labels=False))
    losses = tiny_model.train(parts, steps=2)
    assert losses.isfinite().all()


def test_weights_of_tasks_and_of_single_labels_are_those_of_the_config(encoder_folder):
    config = tiny_model.config(
        text={"encoder": str(encoder_folder)},
        tasks={
            "rank": {"weight": 2.0},
            "align": {"weight": 3.0},
            "mlm": {"weight": 4.0},
            "heads": {"weight": 5.0, "weights": {"rating": 6.0}},
        },
    )
    objective = tiny_model.parts(config, DATASET).model.objective
    assert objective.names == ("rank", "align", "mlm", "like", "rating")
    assert objective.weight.tolist() == [2.0, 3.0, 4.0, 5.0, 6.0]


def test_the_text_encoder_has_its_own_rate_and_vectors_do_not_decay(encoder_folder):
    text = {"encoder": str(encoder_folder), "mode": "full", "rows": 2}
    config = tiny_model.config(text=text)
    model = tiny_model.parts(config, DATASET).model
    assert isinstance(model, FLMTrain)
    named = [(name, p) for name, p in model.named_parameters() if ".ebc." not in name]
    optimizer = dense_optimizer(config, named)
    found = {
        id(p): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert len(found) == len(named)
    for name, parameter in named:
        rate = 5e-5 if name.startswith("flm.text_view.encoder.") else 2e-3
        decays = parameter.ndim > 1 and not name.endswith("bias")
        assert found[id(parameter)] == (rate, 0.01 if decays else 0.0), name


def test_a_label_with_the_name_of_a_task_is_refused() -> None:
    clashing = tiny_logs.with_labels(DATASET, {"rank": "binary"}, rank=1.0)
    config = tiny_model.config(tasks={"rank": {}, "heads": {}})
    with pytest.raises(UserError, match=r"labels\.rank: a task is called so"):
        build_model(config, clashing, None)


def test_negatives_that_were_logged_are_ranked_within_what_was_shown():
    model = build_model(tiny_model.config(), tiny_logs.impressions(), None)
    assert isinstance(model.objective.tasks["rank"], LoggedRanking)


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ({"rank": {}}, r"tasks\.rank: the data has no users; allowed: with interactions\.user"),
        ({"align": {}}, r"tasks\.align: needs two views of an item, the data has \[\]"),
    ],
)
def test_a_task_without_its_data_is_the_users_mistake(tasks, told):
    with pytest.raises(UserError, match=told):
        build_model(tiny_model.config(tasks=tasks), tiny_logs.clicks(), None)


def test_alignment_of_a_single_view_is_the_users_mistake():
    config = tiny_model.config(tasks={"align": {}})
    with pytest.raises(UserError, match=r"tasks\.align: .*\['features'\]; allowed: .*views\.text"):
        build_model(config, DATASET, None)


def test_users_are_aligned_with_items_of_a_single_view_too():
    config = tiny_model.config(tasks={"align": {"edges": 4}})
    assert build_model(config, DATASET, None).objective.names == ("align",)
    with pytest.raises(UserError, match=r"tasks\.align\.edges: the data has no users; allowed"):
        build_model(config, tiny_logs.clicks(), None)


def test_each_text_and_each_vector_is_a_view_by_its_name(encoder_folder):
    config = tiny_model.config(text={"encoder": str(encoder_folder)}, tasks={"align": {}})
    model = tiny_model.parts(config, tiny_logs.with_views(DATASET)).model
    assert model.flm.view_names == ("features", "title", "plot", "image")


def test_two_views_of_one_name_are_the_users_mistake():
    for name in ("features", "title"):
        vectors = {name: np.ones((9, 2), dtype=np.float32)}
        items = replace(DATASET.items, vectors=vectors)
        with pytest.raises(UserError, match=rf"two views are called '{name}'"):
            build_flm(HEADS, replace(DATASET, items=items), None)


def test_vectors_of_users_are_numbers_of_theirs():
    face = np.array([[0, 0], [3, 4], [3, 4], [6, 8], [0, 0], [1, 2], [5, 5]], dtype=np.float32)
    users = replace(DATASET.users, vectors={"face": face})
    dataset = replace(DATASET, users=users)
    parts = tiny_model.parts(HEADS, dataset)
    batch = parts.collator.step(parts.sampler, 0)
    rows = batch.users.features["user_id"].values().numpy()
    scale = np.sqrt(np.square(face[[1, 2, 3, 5, 6]]).mean())
    np.testing.assert_allclose(batch.users.numbers.numpy(), face[rows] / scale, rtol=1e-6)
    losses, _ = parts.model(batch)
    losses.sum().backward()
    assert parts.model.flm.user_view.numbers.weight.grad.abs().sum() > 0
