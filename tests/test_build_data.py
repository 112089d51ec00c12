import numpy as np
import pytest
import tiny
import tiny_logs
import tiny_model

from flm_torchrec.build_data import (
    build_collator,
    build_negatives,
    build_sampler,
    check_shares,
    window_of,
)
from flm_torchrec.data.negatives import (
    AllItems,
    InBatchItems,
    MixedItems,
    Negatives,
    NoItems,
    PopularItems,
)
from flm_torchrec.data.sampling import LogSampler, UserSampler
from flm_torchrec.errors import UserError

DATASET = tiny.dataset()
CLICKS = tiny_logs.clicks()
IMPRESSIONS = tiny_logs.impressions()


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"data": {"users": 3, "rows": 5}}, r"data\.users: 3"),
        ({"tasks": {"mlm": {"texts": 5}}}, r"tasks\.mlm\.texts: 5"),
        ({"text": {"mode": "full", "rows": 3}}, r"views\.text\.rows: 3"),
    ],
)
def test_what_the_ranks_cannot_share_equally_is_the_users_mistake(encoder_folder, sections, key):
    text = {"encoder": str(encoder_folder), **sections.get("text", {})}
    config, dataset = tiny_model.config(**{**sections, "text": text}), DATASET
    check_shares(config, dataset, 1)
    with pytest.raises(UserError, match=rf"{key} can't be served by 2 ranks; .*multiples of 2"):
        check_shares(config, dataset, 2)


def test_more_users_or_texts_a_step_than_there_are_is_the_users_mistake(encoder_folder):
    with pytest.raises(UserError, match=r"data\.users: 8; the data has 6 users"):
        build_sampler(tiny_model.config(data={"users": 8}), DATASET)
    config = tiny_model.config(text={"encoder": str(encoder_folder), "mode": "full", "rows": 8})
    with pytest.raises(UserError, match=r"views\.text\.rows: 8; the data has 7 texts of items"):
        tiny_model.parts(config, DATASET)


def test_what_a_step_holds_is_shared_among_the_ranks(encoder_folder):
    text = {"encoder": str(encoder_folder), "mode": "full", "rows": 4}
    tasks = {"mlm": {"texts": 6}, "align": {"items": 4, "edges": 8}}
    config = tiny_model.config(text=text, tasks=tasks)
    made = tiny_model.parts(config, DATASET, rank=1, world_size=2).collator
    assert (made.text_rows, made.masked_rows) == (2, 3)
    assert (made.aligned_rows, made.aligned_edges) == (2, 4)
    assert (made.rank, made.world_size, made.window) == (1, 2, 4)


def test_the_data_says_whether_users_or_interactions_are_drawn():
    sampler = build_sampler(tiny_model.config(data={"users": 3}), DATASET)
    assert isinstance(sampler, UserSampler)
    assert len(sampler(0).user) == 3
    log = build_sampler(tiny_model.config(data={"users": 5000, "rows": 8}), CLICKS)
    assert isinstance(log, LogSampler)
    assert len(log(0)) == 8
    assert (CLICKS.interactions.part[log(0)] == 0).all()
    assert build_sampler(tiny_model.config(), tiny_logs.corpus(["red car"])) is None


def test_what_was_shown_at_once_stays_together_where_negatives_are_logged():
    shown = build_sampler(tiny_model.config(data={"rows": 16}), IMPRESSIONS)
    assert isinstance(shown, LogSampler)
    assert shown.run == 16
    clicks = build_sampler(tiny_model.config(data={"rows": 16}), CLICKS)
    assert isinstance(clicks, LogSampler)
    assert clicks.run == 1


def test_more_interactions_a_step_than_there_are_is_the_users_mistake():
    most = int((CLICKS.interactions.part == 0).sum())
    config = tiny_model.config(data={"rows": most + 1})
    with pytest.raises(UserError, match=rf"data\.rows: {most + 1}; .*{most} inter.*most {most}"):
        build_sampler(config, CLICKS)


@pytest.mark.parametrize(
    ("name", "value", "usual"),
    [("shuffle_ties", True, "False"), ("ahead", 2, "1"), ("hide_users", 0.5, "0.0")],
)
def test_what_is_drawn_of_windows_is_the_users_mistake_with_a_log(name, value, usual):
    config = tiny_model.config(data={"rows": 10, name: value}, tasks={"heads": {}})
    told = rf"data\.{name}: {value}; .*allowed: {usual}, or data with order: by_user"
    with pytest.raises(UserError, match=told):
        build_sampler(config, tiny_logs.clicks())


def test_a_log_is_shared_by_its_rows():
    config = tiny_model.config(data={"users": 3, "rows": 8})
    check_shares(config, CLICKS, 2)
    with pytest.raises(UserError, match=r"data\.rows: 8 can't be served by 3 ranks"):
        check_shares(config, CLICKS, 3)


def test_sequences_without_a_window_are_the_users_mistake():
    with pytest.raises(UserError, match=r"data\.window: 0; order: by_user"):
        build_sampler(tiny_model.config(data={"window": 0}), DATASET)


def test_the_window_is_0_where_the_data_has_no_history():
    config = tiny_model.config()
    assert window_of(config, DATASET) == window_of(config, IMPRESSIONS) == 4
    assert window_of(config, CLICKS) == window_of(config, tiny_logs.corpus(["car"])) == 0


def negatives(data: dict[str, object] | None = None, dataset=DATASET, **tasks) -> Negatives:
    return build_negatives(tiny_model.config(data=data, tasks=tasks or {"rank": {}}), dataset)


def test_negatives_are_all_items_or_drawn_by_popularity_among_the_trained_positives():
    every = negatives()
    assert isinstance(every, AllItems)
    assert every.num_items == 9
    drawn = negatives({"negatives": 4, "negative_power": 1.0})
    assert isinstance(drawn, PopularItems)
    counts = np.array([0, 3, 3, 2, 3, 3, 3, 1, 1])  # item 8, not in training, counts as one
    assert drawn.q == pytest.approx(counts / counts.sum())


def test_the_source_of_negatives_is_chosen_by_name():
    data = {"negatives": 4, "negative_source": "in_batch"}
    assert isinstance(negatives(data), InBatchItems)
    assert isinstance(negatives({**data, "negative_source": "mixed"}), MixedItems)


def test_without_a_task_that_reads_them_there_are_no_negatives():
    assert isinstance(negatives(heads={}), NoItems)
    assert isinstance(negatives(dataset=IMPRESSIONS), NoItems)
    assert isinstance(negatives(dataset=CLICKS, heads={}), NoItems)


def test_a_label_that_always_holds_is_learned_from_negatives():
    always = tiny_logs.with_labels(DATASET, {"click": "always"}, click=1.0)
    assert isinstance(negatives(dataset=always, heads={}), AllItems)


def test_a_language_model_without_a_text_to_train_on_is_the_users_mistake(encoder_folder):
    config = tiny_model.config(text={"encoder": str(encoder_folder)}, tasks={"mlm": {}})
    with pytest.raises(UserError, match=r"tasks\.mlm: the data has no text to train on"):
        build_collator(config, DATASET, texts=None, rank=0, world_size=1)


def test_impressions_are_not_torn_apart_by_steps_or_ranks():
    for rows, ranks, fits in ((128, 2, True), (64, 1, True), (64, 2, False), (96, 1, False)):
        config = tiny_model.config(data={"rows": rows})
        if fits:
            check_shares(config, IMPRESSIONS, ranks)
        else:
            with pytest.raises(
                UserError, match=rf"data\.rows: {rows}; .*multiples of {64 * ranks}"
            ):
                check_shares(config, IMPRESSIONS, ranks)


def test_in_batch_negatives_know_how_often_long_sequences_are_shown():
    # Of users 1 to 6 training has 5, 3, 2, 4, 2 and 2 interactions.
    config = tiny_model.config(data={"window": 2, "negatives": 4, "negative_source": "in_batch"})
    drawn = build_negatives(config, DATASET)
    # Item 6 is met by users 4, 5 and 6, item 3 by 1 and 2; of user 1 an epoch has 3 windows of 2.
    share = {3: 6 / 5 + 4 / 3, 6: 4 / 4 + 1 + 1}
    assert drawn.q[6] / drawn.q[3] == pytest.approx(share[6] / share[3])


def test_negatives_that_nobody_draws_are_the_users_mistake():
    with pytest.raises(UserError, match=r"data\.negatives: 5; the schema says negatives: logged"):
        negatives({"negatives": 5}, dataset=IMPRESSIONS)
    for data, told in (
        ({"negative_source": "mixed"}, "have no effect with negatives: all"),
        ({"negatives": 4, "negative_source": "in_batch", "negative_power": 1.0}, "in_batch"),
    ):
        with pytest.raises(ValueError, match=told):
            tiny_model.config(data=data)
