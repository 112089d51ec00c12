"""How much of what the machine can compute does the text tower use?"""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from flm_benchmarks.harness import in_turn, spread
from flm_benchmarks.sharding.timing import finish
from torch import nn
from transformers import BertConfig, BertModel

from flm_torchrec.views.text import TextView

TOKENS = 64  # of a text
# Dense bf16 operations/s by the makers' data sheets, by a part of the device's name.
PEAKS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}
# MiniLM-L6 where there is no GPU; there BERT-base, which BertConfig is by itself.
SMALL: dict[str, Any] = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
}


def step_of(view: TextView, *, texts: int, device: torch.device) -> Callable[[], float]:
    """Encode random texts and go back; -> seconds."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1_000, 20_000, (texts, TOKENS), generator=generator).to(device)
    attention = torch.ones_like(tokens)

    def step() -> float:
        finish(device)
        begin = perf_counter()
        view.zero_grad()
        view.encode(tokens, attention).square().sum().backward()
        finish(device)
        return perf_counter() - begin

    return step


def product_of(size: int, *, dtype: torch.dtype, device: torch.device) -> Callable[[], float]:
    """Multiply two matrices, `size` wide and long; -> seconds."""
    matrix = torch.ones(size, size, dtype=dtype, device=device)

    def step() -> float:
        finish(device)
        begin = perf_counter()
        torch.mm(matrix, matrix)
        finish(device)
        return perf_counter() - begin

    return step


def flops_of(encoder: nn.Module, *, texts: int, layers: int, width: int) -> int:
    """Floating-point operations that the model asks for, forward and backward: 6 a weight of its
    linear maps and token, and 12 a token, layer, width and token that it attends to (Chowdhery et
    al., 2022, appendix B). What is computed again counts once."""
    linear = (module for module in encoder.modules() if isinstance(module, nn.Linear))
    weights = sum(module.weight.numel() for module in linear)
    return texts * TOKENS * (6 * weights + 12 * layers * width * TOKENS)


def measure(*, repeats: int, dtype: torch.dtype = torch.bfloat16) -> dict[str, Any]:
    """A forward and backward pass of the encoder against a product of large matrices, in turn."""
    is_cuda = torch.cuda.is_available()
    device = torch.device("cuda" if is_cuda else "cpu")
    sizes = BertConfig(**({} if is_cuda else SMALL))
    texts, size = (512, 8192) if is_cuda else (32, 2048)
    torch.manual_seed(0)
    encoder: nn.Module = BertModel(sizes, add_pooling_layer=False)
    view = TextView(encoder, hidden=sizes.hidden_size, dim=64, dtype=dtype).to(device).eval()
    step = step_of(view, texts=texts, device=device)
    layers, width = sizes.num_hidden_layers, sizes.hidden_size
    flops, most = flops_of(encoder, texts=texts, layers=layers, width=width), 2 * size**3
    told = torch.cuda.get_device_name() if is_cuda else "cpu"
    is_half = dtype == torch.bfloat16
    peak = next((own for name, own in PEAKS.items() if is_half and name in told), None)
    ways = [step, product_of(size, dtype=dtype, device=device)]
    (seconds, product), every = in_turn(ways, repeats=repeats)
    return {
        "device": told,
        "dtype": str(dtype).removeprefix("torch."),
        "layers": layers,
        "width": width,
        "texts": texts,
        "tokens": TOKENS,
        "texts_per_s": texts / seconds,
        "tflop_per_s": flops / seconds / 1e12,
        "product_tflop_per_s": most / product / 1e12,
        "share_of_product": (flops / seconds) / (most / product),
        "utilisation": None if peak is None else flops / seconds / peak,
        "spread": [spread(column) for column in every],
    }
