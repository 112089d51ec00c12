"""Adapters in encoders of several architectures."""

import pytest
import torch
from tiny_model import save_decoder, save_encoder
from torch import nn
from transformers import AutoModel, DistilBertConfig, DistilBertModel

from flm_torchrec.errors import UserError
from flm_torchrec.views.adapters import add_adapters
from flm_torchrec.views.text import TextView

TOKENS = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
ATTENTION = (TOKENS > 0).long()


@pytest.fixture(params=["bert", "gpt2", "distilbert"])
def encoder(request: pytest.FixtureRequest, tmp_path) -> nn.Module:
    if request.param == "distilbert":
        sizes = {"vocab_size": 12, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
        return DistilBertModel(DistilBertConfig(**sizes))
    save = save_encoder if request.param == "bert" else save_decoder
    model = AutoModel.from_pretrained(save(tmp_path))
    model.pooler = None
    return model


@pytest.mark.parametrize("kind", ["lora", "adapter"])
def test_an_encoder_with_adapters_says_what_it_said_and_they_alone_train(encoder, kind):
    view = TextView(encoder, hidden=16, dim=8)
    view.eval()
    before = view.encode(TOKENS, ATTENTION).detach()
    num_whole = sum(parameter.numel() for parameter in encoder.parameters())
    add_adapters(encoder, kind, rank=2)
    view.eval()
    torch.testing.assert_close(view.encode(TOKENS, ATTENTION), before)
    trained = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    mark = "lora_" if kind == "lora" else "ia3_"
    assert trained
    assert all(mark in name for name in trained)
    assert sum(p.numel() for p in encoder.parameters()) - num_whole == sum(
        p.numel() for p in trained.values()
    )
    for step in range(2):  # at first LoRA's second matrix alone has a gradient
        loss = view.encode(TOKENS, ATTENTION)[:, 0].sum()
        loss.backward()
        if step == 1:
            assert [name for name, p in trained.items() if not p.grad.abs().sum() > 0] == []
        with torch.no_grad():
            for parameter in trained.values():
                parameter -= parameter.grad
                parameter.grad = None
    after = view.encode(TOKENS, ATTENTION).detach()
    assert float((after - before).abs().max()) > 1e-4
    assert view.token_embedding().shape[1] == 16


def test_an_encoder_without_linear_maps_is_told():
    with pytest.raises(UserError, match=r"views.text.mode: adapter can't be put into Sequential"):
        add_adapters(nn.Sequential(nn.LayerNorm(2)), "adapter", rank=2)
