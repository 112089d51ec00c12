from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_logs
import tiny_model
import torch

from flm_torchrec.build import build_flm
from flm_torchrec.build_history import build_history
from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.schema import Schema, Split
from flm_torchrec.errors import UserError
from flm_torchrec.views.history import CausalHistory
from flm_torchrec.views.mean_history import MeanHistory
from flm_torchrec.views.set_history import SetHistory

DATASET = tiny.dataset()
HEADS: dict[str, Any] = {"heads": {"dropout": 0.0}}


def config(kind: str = "causal", *, tasks: dict[str, Any] | None = None, **more: Any) -> Any:
    return tiny_model.config(
        views={"history": {"kind": kind, "dropout": 0.0, **more}}, tasks=tasks or HEADS
    )


def at_random(data: Dataset) -> Dataset:
    """The same data, of which the schema says that they were split at random."""
    return replace(data, schema=data.schema.model_copy(update={"split": split("random")}))


def split(kind: str) -> Any:
    changed = tiny.schema().model_dump(mode="json") | {"split": kind}
    return type(DATASET.schema).model_validate(changed).split


@pytest.mark.parametrize(
    ("kind", "made"), [("causal", CausalHistory), ("mean", MeanHistory), ("set", SetHistory)]
)
def test_the_history_is_chosen_by_its_kind(kind, made):
    assert type(build_flm(config(kind), DATASET, None).history) is made


@pytest.mark.parametrize("kind", ["causal", "mean", "set"])
def test_what_events_told_is_read_unless_told_is_false(kind):
    read = build_history(config(kind), DATASET)
    assert read.event.in_features == 2
    assert build_history(config(kind, told=False), DATASET).event is None
    assert build_history(config(kind), tiny.dataset(labels=False)).event is None


@pytest.mark.parametrize("kind", ["causal", "mean"])
def test_gaps_are_read_if_gaps_is_true(kind):
    assert build_history(config(kind), DATASET).gap is None
    assert build_history(config(kind, gaps=True), DATASET).gap is not None


def test_data_without_histories_have_none():
    assert build_history(config("set"), tiny_logs.clicks()) is None
    assert build_history(config("set"), tiny_logs.corpus(["red car"])) is None


@pytest.mark.parametrize(
    ("history", "told"),
    [
        ({"kind": "set", "gaps": True}, r"gaps: true; .*allowed with kind: set: false"),
        ({"kind": "mean", "layers": 1}, r"layers has no effect with kind: mean"),
        ({"kind": "mean", "heads": 4}, r"heads has no effect with kind: mean"),
        ({"kind": "gru"}, r"kind"),
    ],
)
def test_what_a_kind_does_not_read_is_the_users_mistake(history, told):
    with pytest.raises(ValueError, match=told):
        tiny_model.config(views={"history": history})


@pytest.mark.parametrize("task", ["rank", "order"])
def test_a_set_ranks_only_where_the_split_is_random(task):
    ranks = config("set", tasks={task: {}})
    told = (
        rf"views\.history\.kind: set; tasks\.{task} would rank what a user met by what came after "
        r"it, and the split is leave_one_out; allowed: causal or mean, or split: random"
    )
    with pytest.raises(UserError, match=told):
        build_history(ranks, DATASET)
    assert isinstance(build_history(ranks, at_random(DATASET)), SetHistory)


def test_a_set_does_not_rank_what_was_shown_at_once():
    told = r"views\.history\.kind: set; tasks\.rank .* negatives are logged; allowed: causal or"
    with pytest.raises(UserError, match=told):
        build_history(config("set", tasks={"rank": {}}), at_random(tiny_logs.impressions()))


def test_a_set_ranks_items_that_training_never_met():
    schema = DATASET.schema.model_copy(update={"split": Split(kind="item_cold")})
    made = build_history(config("set", tasks={"rank": {}}), replace(DATASET, schema=schema))
    assert isinstance(made, SetHistory)


def test_the_tables_of_a_linear_path_read_an_order():
    views = {"linear": {"rank": 4}, "history": {"kind": "set"}}
    made = tiny_model.config(views=views, tasks={"rank": {}})
    with pytest.raises(UserError, match=r"views\.linear\.rank: 4; .*allowed: 0, or kind"):
        build_history(made, at_random(DATASET))


@pytest.mark.parametrize(
    ("name", "value", "usual"), [("ahead", 2, 1), ("shuffle_ties", True, False)]
)
def test_a_set_looks_every_way_already(name, value, usual):
    made = tiny_model.config(data={name: value}, views={"history": {"kind": "set"}})
    told = rf"data\.{name}: {value}; .*allowed: {usual}, or kind: causal or mean"
    with pytest.raises(UserError, match=told):
        build_history(made, at_random(DATASET))


@pytest.mark.parametrize("kind", ["causal", "mean"])
def test_ranking_falls_on_a_planted_order(kind):
    data = tiny.dataset(tiny.cycles())
    losses = tiny_model.train(
        tiny_model.parts(config(kind, gaps=True, tasks={"rank": {}}), data), steps=60
    )
    assert losses[-5:].mean() < 0.4 * losses[:5].mean()


def test_ranking_by_a_set_falls_on_planted_neighbours():
    data = at_random(tiny.dataset(tiny.cycles(length=6)))
    parts = tiny_model.parts(config("set", tasks={"rank": {}}), data)
    losses = tiny_model.train(parts, steps=60)
    assert losses[-5:].mean() < 0.4 * losses[:5].mean()


def tastes(*, users: int = 24) -> Dataset:
    """Each user likes all the items met, or none: what one event told tells of the others. Users
    share their id, so that nothing else does."""
    data = tiny.dataset(
        {
            user: [(1 + (user + step) % 8, 1 + 4 * (user // 2 % 2)) for step in range(6)]
            for user in range(1, users + 1)
        }
    )
    columns = {**data.users.columns, "user_id": tiny.single([0] * (users + 1), 2)}
    return replace(data, users=replace(data.users, columns=columns))


@pytest.mark.parametrize("kind", ["causal", "mean", "set"])
def test_heads_fall_on_what_other_events_told(kind):
    tasks = {"heads": {"dropout": 0.0, "hidden": 16, "width": 8}}
    found = {}
    for told in (True, False):
        parts = tiny_model.parts(config(kind, told=told, tasks=tasks), tastes())
        found[told] = tiny_model.train(parts, steps=100)[-10:, 0].mean()
    assert found[True] < 0.35
    assert found[True] < 0.7 * found[False]


def test_a_held_out_edge_is_predicted_from_all_that_was_trained_on():
    """Every user's first event is held out: nothing was before it."""
    data = tastes()
    part = np.where(data.interactions.before == 0, 2, 0).astype(np.int8)
    data = at_random(replace(data, interactions=replace(data.interactions, part=part)))
    tasks = {"heads": {"dropout": 0.0, "hidden": 16, "width": 8}}
    parts = tiny_model.parts(config("set", tasks=tasks), data)
    tiny_model.train(parts, steps=100)
    parts.model.eval()
    rows = np.flatnonzero(part == 2)
    batch = parts.collator.edge_batch(rows, parts.collator.seqs)
    heads = parts.model.objective.tasks["heads"]
    like = heads.predict(parts.model.flm(batch), batch)["like"]
    liked = torch.from_numpy(data.interactions.labels["like"][rows]) > 0
    assert like[liked].min() > like[~liked].max()


@pytest.mark.parametrize("kind", ["causal", "mean", "set"])
def test_labels_that_are_classes_are_read_as_classes(kind):
    schema = DATASET.schema.model_dump(mode="json")
    schema["interactions"]["labels"]["type"] = {"kind": "multiclass"}
    log = DATASET.interactions
    labels = {**log.labels, "type": (np.arange(len(log.user)) % 3).astype(np.float32)}
    dataset = replace(
        DATASET,
        schema=Schema.model_validate(schema),
        interactions=replace(log, labels=labels),
        levels={**DATASET.levels, "type": np.arange(3, dtype=np.float32)},
    )
    made = build_history(config(kind), dataset)
    assert (made.numbers, made.classes) == ([0, 1], {2: 3})
    assert build_history(config(kind, told=False), dataset).classes == {}
