from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_model
import torch
from transformers import BertTokenizerFast, DistilBertConfig, DistilBertModel

from flm_torchrec.build import (
    build_collator,
    build_flm,
    build_heads,
    build_negatives,
    build_objective,
    check_shares,
    dense_optimizer,
    masked_pool,
)
from flm_torchrec.config import RunConfig, TextConfig
from flm_torchrec.data.negatives import AllItems, PopularItems
from flm_torchrec.data.sampling import sequences
from flm_torchrec.data.text import held_out_texts
from flm_torchrec.encoder import encoder_folder as folder_of
from flm_torchrec.encoder import load_encoder, token_table
from flm_torchrec.errors import UserError
from flm_torchrec.tasks.heads import BinaryHead, OrdinalHead
from flm_torchrec.tasks.ranking import Ranking
from flm_torchrec.trainable import FLMTrain
from flm_torchrec.views.fusion import GatedFusion, MeanFusion, WeightedFusion

DATASET = tiny.dataset()
SEQS = sequences(DATASET.interactions, before_part=1)
HEADS = tiny_model.config(tasks={"heads": {}})


def text_config(folder: Path, **more) -> TextConfig:
    return TextConfig.model_validate({"encoder": str(folder), "max_tokens": 8, **more})


def test_an_encoder_comes_with_its_tokenizer_and_sizes(encoder_folder):
    encoder = load_encoder(text_config(encoder_folder))
    assert (encoder.hidden, encoder.vocabulary) == (16, tiny_model.VOCABULARY)
    assert len(encoder.tokenizer) == tiny_model.VOCABULARY
    assert {parameter.dtype for parameter in encoder.model.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    assert not any("pooler" in name for name, _ in encoder.model.named_parameters())


def test_encoders_without_a_pooling_layer_load_too(encoder_folder, tmp_path):
    sizes = DistilBertConfig(vocab_size=12, dim=16, n_layers=2, n_heads=2, hidden_dim=32)
    DistilBertModel(sizes).save_pretrained(tmp_path)
    BertTokenizerFast.from_pretrained(encoder_folder).save_pretrained(tmp_path)
    encoder = load_encoder(text_config(tmp_path, mode="full", rows=2))
    assert encoder.hidden == 16
    assert all(parameter.requires_grad for parameter in encoder.model.parameters())


def test_the_encoder_of_an_installed_package_is_found_by_its_name(
    encoder_folder, tmp_path, monkeypatch
):
    model = tmp_path / "tiny_encoder" / "model"
    model.parent.mkdir()
    model.symlink_to(encoder_folder)
    facts = tmp_path / "tiny_encoder-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-encoder\nVersion: 1.0\n")
    (facts / "RECORD").write_text("tiny_encoder/model/config.json,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Path(folder_of("tiny-encoder")) == model
    assert load_encoder(text_config(Path("tiny-encoder"))).hidden == 16


def test_other_names_stand_for_themselves(encoder_folder):
    assert folder_of(str(encoder_folder)) == str(encoder_folder)
    assert folder_of("someone/some-model") == "someone/some-model"
    with pytest.raises(UserError, match=r"views\.text\.encoder: the package 'numpy' holds no"):
        folder_of("numpy")


def test_an_unknown_or_empty_encoder_folder_is_the_users_mistake(tmp_path):
    for folder in (Path("/no/such/folder"), tmp_path):
        with pytest.raises(UserError, match=rf"views\.text\.encoder: '{folder}' can't be loaded"):
            load_encoder(text_config(folder))


def test_an_encoder_folder_without_tokenizer_is_the_users_mistake(tmp_path):
    tiny_model.save_encoder(tmp_path, with_tokenizer=False)
    with pytest.raises(UserError, match=r"views\.text\.encoder: the tokenizer .* knows 5 tokens"):
        load_encoder(text_config(tmp_path))


def test_a_tokenizer_that_knows_more_than_the_encoder_is_the_users_mistake(tmp_path):
    tiny_model.save_encoder(tmp_path)
    tokenizer = BertTokenizerFast.from_pretrained(tmp_path)
    tokenizer.add_tokens(["purple"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"knows 13 tokens.* at most the encoder's 12"):
        load_encoder(text_config(tmp_path))


def test_texts_longer_than_the_encoder_reads_are_the_users_mistake(encoder_folder):
    with pytest.raises(UserError, match=r"views\.text\.max_tokens: 9; allowed: at most the 8"):
        load_encoder(text_config(encoder_folder, max_tokens=9))


def test_several_texts_of_an_item_are_joined(encoder_folder):
    config = text_config(encoder_folder)
    encoder = load_encoder(config)
    text = {"title": ["", *tiny.TITLES], "colour": ["", *["red"] * 8]}
    dataset = replace(DATASET, items=replace(DATASET.items, text=text))
    table = token_table(dataset, encoder, config)
    words = [encoder.tokenizer.decode(row, skip_special_tokens=True) for row in table.tokens]
    assert words[0] == ""
    assert words[2] == "blue car red"
    assert words[7] == "red"  # an item with one text only


def test_a_text_view_over_data_without_text_is_the_users_mistake(encoder_folder):
    config = text_config(encoder_folder)
    dataset = replace(DATASET, items=replace(DATASET.items, text={}))
    with pytest.raises(UserError, match=r"views\.text: the data's schema declares no text"):
        token_table(dataset, load_encoder(config), config)


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


def collator(config: RunConfig, *, text=None, world_size: int = 2):
    return build_collator(config, DATASET, SEQS, text=text, rank=0, world_size=world_size)


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"data": {"users": 3}}, r"data\.users: 3"),
        ({"tasks": {"mlm": {"texts": 5}}}, r"tasks\.mlm\.texts: 5"),
        ({"text": {"mode": "full", "rows": 3}}, r"views\.text\.rows: 3"),
    ],
)
def test_what_the_ranks_cannot_share_equally_is_the_users_mistake(encoder_folder, sections, key):
    text = {"encoder": str(encoder_folder), **sections.get("text", {})}
    config = tiny_model.config(**{**sections, "text": text})
    check_shares(config, 1)
    with pytest.raises(UserError, match=rf"{key} can't be served by 2 ranks; .*multiples of 2"):
        check_shares(config, 2)


def test_more_users_or_texts_a_step_than_there_are_is_the_users_mistake(encoder_folder):
    with pytest.raises(UserError, match=r"data\.users: 8; the data has 6 users"):
        collator(tiny_model.config(data={"users": 8}))
    config = tiny_model.config(text={"encoder": str(encoder_folder), "mode": "full", "rows": 8})
    with pytest.raises(UserError, match=r"views\.text\.rows: 8; the data has 7 items with text"):
        tiny_model.parts(config, DATASET)


def test_what_a_step_holds_is_shared_among_the_ranks(encoder_folder):
    text = {"encoder": str(encoder_folder), "mode": "full", "rows": 4}
    tasks = {"mlm": {"texts": 6}, "align": {"items": 5}}
    config = tiny_model.config(text=text, tasks=tasks)
    made = tiny_model.parts(config, DATASET, rank=1, world_size=2).collator
    assert (made.text_rows, made.masked_rows, made.aligned_rows) == (2, 3, 5)
    assert (made.rank, made.world_size, made.window) == (1, 2, 4)


def test_negatives_are_all_items_or_drawn_by_popularity_in_training():
    every = build_negatives(tiny_model.config(), DATASET)
    assert isinstance(every, AllItems)
    assert every.num_items == 9
    config = tiny_model.config(data={"negatives": 4, "negative_power": 1.0})
    drawn = build_negatives(config, DATASET)
    assert isinstance(drawn, PopularItems)
    counts = np.array([0, 3, 3, 2, 3, 3, 3, 1, 1])  # item 8, not in training, counts as one
    assert drawn.q == pytest.approx(counts / counts.sum())


def test_the_masked_language_model_trains_on_all_texts_but_the_held_out(encoder_folder):
    config = text_config(encoder_folder)
    table = token_table(DATASET, load_encoder(config), config)
    held_out, pool = held_out_texts(table).tolist(), masked_pool(table).tolist()
    assert len(held_out) == 1
    assert sorted(held_out + pool) == [1, 2, 3, 4, 5, 6, 8]


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
    met = tiny.dataset()
    labels = {"rank": met.interactions.labels["like"]}
    clashing = replace(met, interactions=replace(met.interactions, labels=labels))
    with pytest.raises(UserError, match=r"labels\.rank: a task is called so"):
        build_objective(tiny_model.config(tasks={"rank": {}, "heads": {}}), clashing, None)
