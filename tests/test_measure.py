from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import tiny
import tiny_logs
import tiny_model
import torch
from two_ranks.pool import Ranks

from flm_torchrec.assemble import Assembly
from flm_torchrec.data.dataset import TEST, TRAIN, VALIDATION, Column, Dataset
from flm_torchrec.data.schema import Split
from flm_torchrec.measure import (
    edge_quality,
    label_metrics,
    met_where,
    quality,
    ranking_task,
    ranks_catalogue,
)
from flm_torchrec.measure_hidden import cloze_accuracy
from flm_torchrec.retrieval import Retrieval
from flm_torchrec.training.runtime import Runtime

HEADS = {"heads": {"dropout": 0.0}}


def assembled(made: tiny_model.Parts, runtime: Runtime) -> Assembly:
    """What the measures read of a run, without sharding."""

    def retrieval() -> Retrieval:
        return Retrieval(
            made.model,
            made.collator,
            device=runtime.device,
            rank=0,
            world_size=1,
            gather=lambda tensor: tensor,
        )

    run: Any = SimpleNamespace(
        dataset=made.dataset,
        runtime=runtime,
        model=made.model,
        collator=made.collator,
        retrieval=retrieval,
    )
    return cast("Assembly", run)


def run_of(dataset: Dataset, runtime: Runtime, *, steps: int = 0, **more: Any) -> Assembly:
    data = {"rows": 32, **more.pop("data", {})}
    made = tiny_model.parts(tiny_model.config(data=data, **more), dataset)
    if steps:
        tiny_model.train(made, steps=steps)
    return assembled(made, runtime)


def test_what_users_wanted_is_to_be_found_and_what_they_met_is_left_out():
    base = tiny.dataset()
    part = base.interactions.part.copy()
    part[-5:] = TEST  # the last events of user 5 and all of user 6
    positive = base.interactions.positive.copy()
    positive[-1] = False
    met = replace(base.interactions, part=part, positive=positive)
    task = ranking_task(replace(base, interactions=met), "test")
    users = task.users.tolist()
    assert users == [1, 2, 3, 4, 5, 6]
    of_5 = task.targets.take(np.array([users.index(5)]))
    of_6 = task.targets.take(np.array([users.index(6)]))
    assert (of_5.values.tolist(), of_6.values.tolist()) == ([6, 7, 1], [6])
    assert task.seen.take(np.array([users.index(5)])).values.tolist() == [5]


def test_held_out_items_are_ranked_among_themselves():
    base = tiny.dataset()
    split = base.schema.model_copy(update={"split": Split(kind="item_cold")})
    item = base.interactions.item
    part = np.where(item == 3, TEST, np.where(item == 5, VALIDATION, TRAIN)).astype(np.int8)
    held = replace(base, schema=split, interactions=replace(base.interactions, part=part))
    found = {name: ranking_task(held, name).candidates for name in ("validation", "test")}
    assert {name: np.flatnonzero(own).tolist() for name, own in found.items()} == {
        "validation": [5],
        "test": [3],
    }


def test_where_items_are_met_again_nothing_is_left_out():
    task = ranking_task(tiny.dataset(repeats=True), "test")
    assert len(task.seen.values) == 0
    assert len(task.users) == 5


def test_what_was_met_comes_by_user_whatever_the_order_of_the_log():
    shown = tiny_logs.impressions()
    met = met_where(shown, shown.interactions.part < TEST)
    interactions = shown.interactions
    for user in range(7):
        own = (interactions.user == user) & (interactions.part < TEST)
        assert met.take(np.array([user])).values.tolist() == interactions.item[own].tolist()


def test_each_kind_of_label_has_its_metrics():
    declared = {
        "click": "binary",
        "stars": {"kind": "ordinal"},
        "price": {"kind": "real"},
        "kind": {"kind": "multiclass"},
    }
    values = dict.fromkeys(declared, 1.0)
    dataset = tiny_logs.with_labels(tiny.dataset(), declared, **values)
    dataset.interactions.labels["click"][0] = 0
    prediction = torch.tensor([0.25, 0.75, 1.0])
    found = label_metrics(dataset, np.arange(3), dict.fromkeys(declared, prediction))
    assert found["auc_click"] == 1.0
    assert found["accuracy_kind"] == pytest.approx(1 / 3)
    assert found["mae_price"] == found["mae_stars"] == pytest.approx(1 / 3)
    assert set(found) == {
        "auc_click",
        "log_loss_click",
        "rmse_stars",
        "mae_stars",
        "rmse_price",
        "mae_price",
        "accuracy_kind",
    }


def test_a_log_of_clicks_has_the_metrics_of_its_heads(alone):
    run = run_of(tiny_logs.clicks(200), alone, steps=60, tasks=HEADS)
    found = quality(run, part="test")
    assert set(found) == {"auc_click", "log_loss_click", "rmse_paid", "mae_paid"}
    assert found["auc_click"] > 0.9
    assert found["rmse_paid"] < 2


def test_impressions_have_metrics_of_their_own_order(alone):
    run = run_of(tiny_logs.impressions(100), alone, steps=80, tasks={"rank": {}, **HEADS})
    found = quality(run, part="test")
    order = {"group_auc", "mrr", "ndcg@5", "ndcg@10"}
    assert set(found) == {"auc_click", "log_loss_click"} | order
    assert found["group_auc"] > 0.8
    assert not ranks_catalogue(run)


def test_sequences_have_the_ranking_of_the_catalogue_and_their_heads(alone):
    found = quality(run_of(tiny.dataset(), alone, tasks={"rank": {}, **HEADS}), part="test")
    assert {"ndcg@10", "coverage@20", "auc_like", "log_loss_like", "rmse_rating"} <= set(found)


def test_of_a_random_split_the_catalogue_is_ranked_where_order_does_not_matter(alone):
    base = tiny.dataset()
    schema = base.schema.model_dump(mode="json") | {"split": "random"}
    at_random = replace(base, schema=type(base.schema).model_validate(schema))
    for kind, is_ranked in (("causal", False), ("set", True)):
        run = run_of(at_random, alone, tasks={"rank": {}}, views={"history": {"kind": kind}})
        assert ("ndcg@10" in quality(run, part="test")) == is_ranked


@pytest.mark.parametrize("block", [1, 7])
def test_predictions_are_the_same_in_blocks_of_any_size(alone, block):
    run = run_of(tiny_logs.impressions(), alone, tasks={"rank": {}, **HEADS})
    whole = edge_quality(run, part="test")
    assert edge_quality(run, part="test", block=block) == pytest.approx(whole)


def measured(runtime: Runtime) -> dict[str, float]:
    return quality(run_of(tiny.dataset(), runtime, tasks=HEADS), part="test")


def test_two_ranks_measure_what_one_does(alone: Runtime, ranks: Ranks) -> None:
    """5 edges: the second rank scores one twice."""
    whole = measured(alone)
    assert {"auc_like", "rmse_rating"} <= set(whole)
    for found in ranks.run(measured):
        assert found == pytest.approx(whole)


def two_camps(*, items: int = 120, users: int = 60) -> Dataset:
    """Half of the users meet odd items, half even ones; the genre says which. Nothing else does."""
    rng = np.random.default_rng(0)
    events = {
        user: [(int(item), 5.0) for item in 1 + user % 2 + 2 * rng.permutation(items // 2)[:12]]
        for user in range(1, users + 1)
    }
    base = tiny.dataset(events)
    assert base.items is not None
    place = np.arange(items + 1)
    genres = Column(values=1 + place[1:] % 2, offsets=np.append(0, place), num_embeddings=3)
    entity = replace(
        base.items,
        ids=np.array([None, *(f"i{item}" for item in place[1:])], dtype=object),
        columns={"item_id": tiny.single(place.tolist(), items + 1), "genres": genres},
        numbers=np.zeros((items + 1, 0), dtype=np.float32),
        text={"title": [""] * (items + 1)},
    )
    return replace(base, items=entity)


def test_a_hidden_attribute_is_told_by_who_met_the_item(alone: Runtime):
    tasks = {"rank": {}, "cloze": {"attribute": "genres", "items": 8}}
    run = run_of(two_camps(), alone, steps=60, tasks=tasks, data={"users": 12, "window": 8})
    told = cloze_accuracy(run)
    assert told["accuracy"] > max(told["without_id"], told["most_frequent"])


def test_without_the_task_nothing_is_told_of_it(alone: Runtime):
    assert cloze_accuracy(run_of(tiny.dataset(), alone)) == {}
