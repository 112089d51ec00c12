"""Encoders cut below the layers that train: nothing changes but what is computed."""

import numpy as np
import pytest
import torch
from tiny_model import save_decoder
from torch import nn
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaModel,
)

from flm_torchrec.data.batch import MaskedText, TextRows
from flm_torchrec.data.text import Texts, tokenise
from flm_torchrec.views import text_cache
from flm_torchrec.views.layers_below import StatesBelow, can_be_cut
from flm_torchrec.views.text import TextView, freeze
from flm_torchrec.views.text_cache import states_below, text_vectors

TOKENS = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
ATTENTION = (TOKENS > 0).long()
TEXTS = ["", "red car", "blue boat", "", "old blue red train", "plane"]
SIZES = {
    "vocab_size": 12,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


@pytest.fixture
def view(encoder_folder) -> TextView:
    encoder = AutoModel.from_pretrained(encoder_folder, add_pooling_layer=False)
    freeze(encoder, "last_n", last=1)
    return TextView(encoder, hidden=16, dim=8)


@pytest.fixture
def texts(encoder_folder) -> Texts:
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder)
    table = tokenise(TEXTS, tokenizer, max_tokens=8)
    return Texts(table=table, num_names=1, num_items=6, masked_pool=np.zeros(0, dtype=np.int64))


def kept(view, texts, folder=None) -> StatesBelow | None:
    alone = {"rank": 0, "world_size": 1, "gather": lambda tensor: tensor}
    return states_below(view, texts, last=1, folder=folder, batch_size=2, **alone)


@pytest.mark.parametrize(
    ("encoder", "can"),
    [
        (BertModel(BertConfig(**SIZES)), True),
        (RobertaModel(RobertaConfig(**SIZES)), True),
        (DistilBertModel(DistilBertConfig(vocab_size=12, dim=16, n_layers=3, n_heads=2)), True),
        (ElectraModel(ElectraConfig(**SIZES, embedding_size=8)), False),
    ],
    ids=["bert", "roberta", "distilbert", "electra"],
)
def test_an_encoder_put_together_as_bert_is_can_be_cut(encoder: nn.Module, can: bool) -> None:
    encoder.eval()
    for last in (1, 2, 3):
        assert can_be_cut(encoder, TOKENS, ATTENTION, last=last) == can


def test_a_decoder_can_not(tmp_path) -> None:
    encoder = AutoModel.from_pretrained(save_decoder(tmp_path)).eval()
    assert not can_be_cut(encoder, TOKENS, ATTENTION, last=1)


def test_rows_and_gradients_are_those_of_the_whole_encoder(view, texts) -> None:
    view.eval()
    view.vectors = torch.ones(1, 6, 16)
    item = torch.tensor([5, 2, 4])
    tokens, attention = (torch.from_numpy(a) for a in texts.table.take(np.array([4, 5])))
    rows = TextRows(
        item=torch.tensor([2, 0]), name=torch.zeros(2).long(), tokens=tokens, attention=attention
    )
    found = []
    for below in (None, kept(view, texts)):
        view.below = below
        made, _, _, _ = view(item, rows, MaskedText.none())
        made.square().sum().backward()
        gradients = {n: p.grad.clone() for n, p in view.named_parameters() if p.grad is not None}
        found.append((made.detach(), gradients))
        view.zero_grad()
    (whole, wanted), (cut, gradients) = found
    torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-5)
    assert wanted.keys() == gradients.keys()
    assert any(name.startswith("encoder.encoder.layer.1.") for name in gradients)
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-6)


def test_what_is_kept_adds_nothing_to_the_model(view, texts) -> None:
    names = list(view.state_dict())
    view.below = kept(view, texts)
    assert list(view.state_dict()) == names
    assert view.training


def test_vectors_of_a_catalogue_come_from_what_is_kept(view, texts, monkeypatch) -> None:
    alone = {"folder": None, "rank": 0, "world_size": 1, "gather": lambda tensor: tensor}
    whole = text_vectors(view, texts, **alone)
    view.below = kept(view, texts)
    monkeypatch.setattr(view.encoder.embeddings, "forward", None)  # the whole is not asked
    torch.testing.assert_close(text_vectors(view, texts, **alone, known=True), whole)


def test_the_file_is_of_the_layers_below_alone(view, texts, tmp_path) -> None:
    first = kept(view, texts, tmp_path)
    with torch.no_grad():
        for parameter in view.encoder.encoder.layer[-1].parameters():
            parameter += 1
    (file,) = tmp_path.iterdir()
    np.save(file, np.full_like(first.states.numpy(), 7))
    assert (kept(view, texts, tmp_path).states == 7).all()
    with torch.no_grad():
        view.encoder.encoder.layer[0].output.dense.weight += 1
    assert not (kept(view, texts, tmp_path).states == 7).any()
    assert len(list(tmp_path.iterdir())) == 2


def test_what_would_take_too_much_memory_is_not_kept(view, texts, monkeypatch) -> None:
    size = 4 * 16 * int(texts.table.length.sum())
    monkeypatch.setattr(text_cache, "MOST_BELOW", size)
    assert kept(view, texts) is not None
    monkeypatch.setattr(text_cache, "MOST_BELOW", size - 1)
    assert kept(view, texts) is None


def test_in_bf16_too_vectors_are_those_of_the_whole_encoder(view, texts, tmp_path) -> None:
    alone = {"folder": None, "rank": 0, "world_size": 1, "gather": lambda tensor: tensor}
    kept(view, texts, tmp_path)
    exact = text_vectors(view, texts, **alone)
    view.dtype = torch.bfloat16
    whole = text_vectors(view, texts, **alone)
    assert not torch.equal(whole, exact)
    # One file keeps them, whoever made them: training, or an evaluation that cuts nothing.
    view.below = kept(view, texts, tmp_path)
    assert view.below is not None
    assert view.below.states.dtype == torch.float32
    cut = text_vectors(view, texts, known=True, **alone)
    assert (cut - whole).abs().mean() < (exact - whole).abs().mean() / 10
    assert len(list(tmp_path.glob("below-*.npy"))) == 2
