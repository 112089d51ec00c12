from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_logs
import tiny_model
import torch
from torch.nn import functional as F

from flm_torchrec.build import build_model
from flm_torchrec.config import TextConfig
from flm_torchrec.data.masking import next_tokens
from flm_torchrec.data.text_batch import masked_batch
from flm_torchrec.encoder import load_encoder, tokenised
from flm_torchrec.errors import UserError
from flm_torchrec.tasks.mlm import CausalLM

H, W = 4, 7
TARGET = torch.tensor([[5, 6, -100], [3, -100, -100]])


@pytest.fixture(scope="module")
def decoder_folder(tmp_path_factory) -> Path:
    return tiny_model.save_decoder(tmp_path_factory.mktemp("decoder"))


def text_config(folder: Path) -> TextConfig:
    return TextConfig(encoder=str(folder), max_tokens=8, mode="full", rows=1)


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, H, generator=generator), torch.randn(W, H, generator=generator)


def loss(states, embedding, target=TARGET) -> torch.Tensor:
    batch = tiny_model.batch([[1]], item_row=[0, 1], masked_target=target)
    return CausalLM()(tiny_model.views(masked_states=states, token_embedding=embedding), batch)


def test_the_loss_by_hand_is_a_mean_over_texts_of_a_mean_over_tokens():
    states, embedding = tensors()
    each = F.cross_entropy((states @ embedding.T).transpose(1, 2), TARGET, reduction="none")
    expected = (each[0, :2].mean() + each[1, 0]) / 2
    assert loss(states, embedding).item() == pytest.approx(expected.item())


def test_states_and_token_embeddings_get_a_gradient():
    states, embedding = (tensor.requires_grad_() for tensor in tensors())
    loss(states, embedding).backward()
    assert (states.grad.abs().sum(2) > 0).tolist() == [[True, True, False], [True, False, False]]
    assert embedding.grad.abs().sum() > 0


@pytest.mark.parametrize("texts", [0, 2])
def test_without_a_next_token_the_loss_is_0_and_has_a_gradient(texts):
    states, embedding = tensors()
    embedding.requires_grad_()
    value = loss(states[:texts], embedding, torch.full((texts, 3), -100))
    value.backward()
    assert value.item() == 0.0
    assert (embedding.grad == 0).all()


def test_a_target_is_the_token_after():
    tokens, attention = np.array([[4, 5, 6], [7, 0, 0]]), np.array([[1, 1, 1], [1, 0, 0]])
    assert next_tokens(tokens, attention).tolist() == [[5, 6, -100], [-100, -100, -100]]


def test_a_decoder_is_told_from_an_encoder_and_padded_at_the_end(decoder_folder, encoder_folder):
    decoder = load_encoder(text_config(decoder_folder))
    assert decoder.is_decoder
    assert not load_encoder(text_config(encoder_folder)).is_decoder
    texts = tokenised(
        tiny_logs.corpus(["red car", "old blue train"]), decoder, text_config(decoder_folder)
    )
    batch = masked_batch(texts.table, np.arange(2), np.random.default_rng(0), own=slice(None))
    assert batch.tokens.tolist() == [[2, 5, 0], [4, 3, 8]]
    assert batch.target.tolist() == [[5, -100, -100], [3, 8, -100]]
    assert batch.attention.tolist() == [[1, 1, 0], [1, 1, 1]]


def test_the_vector_of_a_text_is_its_last_tokens_state(decoder_folder):
    config = tiny_model.config(
        text={"encoder": str(decoder_folder), "mode": "full", "rows": 1}, tasks={"clm": {}}
    )
    view = tiny_model.parts(config, tiny.dataset()).model.flm.text_view
    view.eval()
    tokens, attention = torch.tensor([[2, 5, 0], [4, 3, 8]]), torch.tensor([[1, 1, 0], [1, 1, 1]])
    states = view.token_states(tokens, attention)
    last = torch.stack([states[0, 1], states[1, 2]])
    expected = F.normalize(last, dim=1) * 4
    torch.testing.assert_close(view.encode(tokens, attention), expected)
    alone = view.encode(tokens[:1, :2], attention[:1, :2])
    torch.testing.assert_close(alone, expected[:1])


def test_each_kind_of_encoder_has_its_language_model(decoder_folder, encoder_folder):
    text = {"encoder": str(decoder_folder), "mode": "full", "rows": 1}
    config = tiny_model.config(text=text, tasks={"mlm": {}})
    with pytest.raises(UserError, match=r"tasks\.mlm: the encoder is a decoder.*tasks\.clm"):
        tiny_model.parts(config, tiny.dataset())
    config = tiny_model.config(text={**text, "encoder": str(encoder_folder)}, tasks={"clm": {}})
    with pytest.raises(UserError, match=r"tasks\.clm: the encoder is no decoder.*tasks\.mlm"):
        build_model(config, tiny.dataset(), load_encoder(config.views.text))


@pytest.mark.parametrize("corpus", [True, False])
def test_the_loss_falls_on_texts_of_a_few_words(decoder_folder, corpus):
    config = tiny_model.config(
        text={"encoder": str(decoder_folder), "mode": "full", "rows": 1},
        tasks={"clm": {"texts": 16}},
    )
    titles = ["red car", "blue boat", "old train", "plane car"] * 2
    dataset = tiny_logs.corpus(titles) if corpus else tiny.dataset(titles=titles)
    losses = tiny_model.train(tiny_model.parts(config, dataset), steps=50, lr=0.01)
    assert losses[-5:].mean() < 0.3 * losses[:3].mean()
