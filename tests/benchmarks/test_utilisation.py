"""Counting what an encoder computes."""

import pytest
import torch
from flm_benchmarks import utilisation
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel

from flm_torchrec.views.text import TextView


def test_operations_are_those_of_the_formula() -> None:
    width, layers, texts = 32, 2, 3
    sizes = BertConfig(
        vocab_size=20_000,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=4 * width,
        attn_implementation="sdpa",
    )
    view = TextView(BertModel(sizes, add_pooling_layer=False), hidden=width, dim=8).eval()
    step = utilisation.step_of(view, texts=texts, device=torch.device("cpu"))
    tokens = texts * utilisation.TOKENS
    told = utilisation.flops_of(view.encoder, texts=texts, layers=layers, width=width)
    assert told == tokens * layers * (6 * 12 * width**2 + 12 * width * utilisation.TOKENS)
    with FlopCounterMode(display=False) as counter:  # which leaves attention out on a CPU
        step()
    weights = tokens * layers * 6 * 12 * width**2
    assert counter.get_total_flops() == pytest.approx(weights, rel=0.01)


def test_the_encoder_is_measured_beside_a_product_of_matrices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64}
    monkeypatch.setattr(utilisation, "SMALL", {**small, "num_attention_heads": 2})
    found = utilisation.measure(repeats=1, dtype=torch.float32)
    assert found["dtype"] == "float32"
    assert found["utilisation"] is None  # nobody tells a CPU's peak
    assert found["share_of_product"] == pytest.approx(
        found["tflop_per_s"] / found["product_tflop_per_s"]
    )
