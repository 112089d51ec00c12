from dataclasses import replace

import numpy as np
import pytest
import tiny
import tiny_logs
import tiny_model

from flm_torchrec.build import build_model
from flm_torchrec.build_data import build_negatives
from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.negatives import AllItems
from flm_torchrec.data.schema import Schema, Split
from flm_torchrec.errors import UserError
from flm_torchrec.tasks.cloze import ClozeTask
from flm_torchrec.tasks.fusion_loss import FusionLoss, LoggedFusionLoss
from flm_torchrec.tasks.pairwise import LabelOrder, SampledOrder, TimeOrder

DATASET = tiny.dataset()


def tasks_of(dataset: Dataset, tasks, views=None):
    config = tiny_model.config(tasks=tasks, views=views)
    return build_model(config, dataset, None).objective.tasks


@pytest.mark.parametrize(
    ("order", "kind"),
    [
        ({}, SampledOrder),
        ({"by": "label", "label": "rating"}, LabelOrder),
        ({"by": "time"}, TimeOrder),
    ],
)
def test_the_true_order_is_chosen_by_name(order, kind):
    made = tasks_of(DATASET, {"order": order})["order"]
    assert type(made) is kind
    if isinstance(made, LabelOrder):
        assert made.label == list(DATASET.interactions.labels).index("rating")


def test_an_order_over_sampled_items_has_negatives():
    config = tiny_model.config(tasks={"order": {}})
    assert isinstance(build_negatives(config, DATASET), AllItems)


@pytest.mark.parametrize(
    ("dataset", "order", "told"),
    [
        (tiny_logs.clicks(), {}, r"tasks\.order: the data has no users; allowed: with inter"),
        (tiny_logs.impressions(), {}, r"order\.by: sampled; .* negatives: logged, .*label$"),
        (tiny_logs.impressions(), {"by": "time"}, r"order\.by: time; .*order: by_log .*by_user"),
        (DATASET, {"by": "label", "label": "x"}, r"order\.label: 'x'; .*: \['like', 'rating'\]"),
    ],
)
def test_an_order_that_the_data_lacks_is_the_users_mistake(dataset, order, told):
    with pytest.raises(UserError, match=told):
        tasks_of(dataset, {"order": order})


def test_no_state_of_a_set_is_before_two_events():
    schema = DATASET.schema.model_copy(update={"split": Split(kind="random")})
    dataset, views = replace(DATASET, schema=schema), {"history": {"kind": "set"}}
    with pytest.raises(UserError, match=r"tasks\.order\.by: time; .*kind: set.*allowed: sampled"):
        tasks_of(dataset, {"order": {"by": "time"}}, views)


@pytest.mark.parametrize(
    ("dataset", "kind"), [(DATASET, FusionLoss), (tiny_logs.impressions(), LoggedFusionLoss)]
)
def test_the_fusion_loss_ranks_as_ranking_does(dataset, kind):
    made = tasks_of(tiny_logs.with_views(dataset), {"rank": {}, "fuse": {}})
    assert type(made["fuse"]) is kind


def test_a_single_view_has_nothing_to_learn_from_itself():
    with pytest.raises(UserError, match=r"tasks\.fuse: needs two views .*\['features'\]"):
        tasks_of(DATASET, {"rank": {}, "fuse": {}})


def test_an_attribute_of_one_value_is_a_choice_and_of_several_a_question_each():
    made = tasks_of(DATASET, {"cloze": {"attribute": "genres"}})["cloze"]
    assert isinstance(made, ClozeTask)
    assert made.several
    assert made.score[-1].out_features == 3
    schema = DATASET.schema.model_dump(mode="json")
    schema["items"]["features"]["maker"] = {"kind": "categorical"}
    columns = {**DATASET.items.columns, "maker": tiny.single([0, 1, 2, 1, 2, 1, 2, 1, 2], 3)}
    dataset = replace(
        DATASET,
        schema=Schema.model_validate(schema),
        items=replace(DATASET.items, columns=columns),
    )
    assert not tasks_of(dataset, {"cloze": {"attribute": "maker"}})["cloze"].several


@pytest.mark.parametrize(
    ("dataset", "attribute", "told"),
    [
        (DATASET, "item_id", r"'item_id'; allowed: a categorical or multi .*: \['genres'\]"),
        (tiny_logs.clicks(), "genres", r"'genres'; allowed: .*: \[\]"),
    ],
)
def test_an_attribute_that_cannot_be_hidden_is_the_users_mistake(dataset, attribute, told):
    with pytest.raises(UserError, match=rf"tasks\.cloze\.attribute: {told}"):
        tasks_of(dataset, {"cloze": {"attribute": attribute}})


def test_an_attribute_that_nothing_has_is_the_users_mistake():
    genres = replace(
        DATASET.items.columns["genres"],
        values=np.zeros(0, dtype=np.int64),
        offsets=np.zeros(10, dtype=np.int64),
    )
    items = replace(DATASET.items, columns={**DATASET.items.columns, "genres": genres})
    with pytest.raises(UserError, match=r"tasks\.cloze\.attribute: 'genres' is known of no item"):
        tasks_of(replace(DATASET, items=items), {"cloze": {"attribute": "genres"}})


def test_a_hidden_event_is_sought_as_ranking_seeks():
    assert tasks_of(DATASET, {"item_cloze": {}})["item_cloze"].mask_seen
    again = tiny.dataset(repeats=True)
    assert not tasks_of(again, {"item_cloze": {}})["item_cloze"].mask_seen
    assert isinstance(
        build_negatives(tiny_model.config(tasks={"item_cloze": {}}), DATASET), AllItems
    )


@pytest.mark.parametrize(
    ("dataset", "views", "told"),
    [
        (tiny_logs.clicks(), None, r"the data has no users"),
        (tiny_logs.impressions(), None, r"finds an event among sampled items; .*: logged"),
        (DATASET, {"history": {"kind": "mean"}}, r"kind: mean; allowed: a history of kind: causal"),
    ],
)
def test_events_that_cannot_be_hidden_are_the_users_mistake(dataset, views, told):
    with pytest.raises(UserError, match=rf"tasks\.item_cloze: .*{told}"):
        tasks_of(dataset, {"item_cloze": {}}, views)
