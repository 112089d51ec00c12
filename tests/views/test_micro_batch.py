"""Texts encoded a few at a time and again in backward, and in bf16: what changes is the memory."""

import weakref
from collections.abc import Callable

import pytest
import torch
from tiny_model import save_decoder
from torch import Tensor, nn
from transformers import AutoModel

from flm_torchrec.data.batch import MaskedText, TextRows
from flm_torchrec.views import text as text_module
from flm_torchrec.views.adapters import add_adapters
from flm_torchrec.views.layers_below import StatesBelow, below
from flm_torchrec.views.text import TextView, freeze

TOKENS = torch.tensor([[2, 5, 8, 3], [2, 9, 3, 0], [2, 6, 3, 0], [2, 7, 10, 3], [2, 11, 3, 0]])
ATTENTION = (TOKENS > 0).long()
ITEM = torch.tensor([4, 2, 0, 1, 3])
TEXT = TextRows(item=ITEM, name=torch.zeros(5).long(), tokens=TOKENS, attention=ATTENTION)
MASKED = MaskedText(tokens=TOKENS, attention=ATTENTION, target=TOKENS)


def full(encoder: nn.Module) -> None:
    freeze(encoder, "full", last=1)


def last_n(encoder: nn.Module) -> None:
    freeze(encoder, "last_n", last=1)


def lora(encoder: nn.Module) -> None:
    add_adapters(encoder, "lora", rank=2)


def adalora(encoder: nn.Module) -> None:
    add_adapters(encoder, "adalora", rank=2)


MODES = [full, last_n, lora, adalora]


def made(folder, mode: Callable[[nn.Module], None] = full) -> TextView:
    torch.manual_seed(0)
    encoder = AutoModel.from_pretrained(folder)
    encoder.pooler = None
    mode(encoder)
    with torch.no_grad():
        for name, value in encoder.named_parameters():
            if ".lora_" in name:
                value.normal_(std=0.1)
    view = TextView(encoder, hidden=16, dim=8)
    view.vectors = torch.randn(1, 5, 16)
    return view


def kept(view: TextView) -> StatesBelow:
    was_training = view.training
    states = below(view.eval().encoder, TOKENS, ATTENTION, last=1).detach()
    view.train(was_training)
    place = torch.argsort(ITEM)
    start = torch.cat([torch.zeros(1).long(), ATTENTION[place].sum(1).cumsum(0)])
    flat = states[place][ATTENTION[place].bool()]
    return StatesBelow(last=1, states=flat, start=start, num_items=5)


def step(view: TextView) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(3)
    rows, _, states, _ = view(torch.arange(5), TEXT, MASKED)
    loss = rows.square().sum() + states[ATTENTION.bool()].square().mean()
    view.zero_grad()
    loss.backward()
    found = {n: p.grad.clone() for n, p in view.named_parameters() if p.grad is not None}
    return torch.cat([loss.detach()[None], rows.detach().flatten()]), found


def check(one, other, *, equal: bool = False) -> None:
    (values, gradients), (expected, wanted) = one, other
    closeness = {"rtol": 0, "atol": 0} if equal else {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(values, expected, **closeness)
    assert gradients.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, **closeness)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.__name__)
def test_parts_give_the_losses_and_gradients_of_the_whole(encoder_folder, mode) -> None:
    view = made(encoder_folder, mode).eval()
    whole = step(view)
    assert any(name.startswith("encoder.") for name in whole[1])
    for size in (1, 2, 5, 8):
        view.micro_batch = size
        check(step(view), whole)


def test_layers_above_what_is_kept_run_in_parts_too(encoder_folder) -> None:
    view = made(encoder_folder, last_n).eval()
    view.below = kept(view)
    whole = step(view)
    view.micro_batch = 2
    check(step(view), whole)


def test_a_decoder_runs_in_parts_too(tmp_path) -> None:
    encoder = AutoModel.from_pretrained(save_decoder(tmp_path))
    view = TextView(encoder, hidden=16, dim=8, last_token=True).eval()
    view.vectors = torch.randn(1, 5, 16)
    text = TextRows(item=ITEM, name=torch.zeros(5).long(), tokens=TOKENS % 9, attention=ATTENTION)
    found = []
    for size in (0, 2):
        view.micro_batch = size
        rows, _, _, _ = view(torch.arange(5), text, MaskedText.none())
        view.zero_grad()
        rows.square().sum().backward()
        found.append(encoder.wte.weight.grad.clone())
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.__name__)
@pytest.mark.parametrize("size", [2, 5])
def test_what_is_run_again_draws_the_same_dropout(encoder_folder, monkeypatch, mode, size) -> None:
    view = made(encoder_folder, mode).train()
    view.micro_batch = size
    again = step(view)
    view.micro_batch = 0 if size == 5 else size
    if view.micro_batch:  # in parts whose activations are kept
        monkeypatch.setattr(text_module, "checkpoint", lambda encode, *part, **_: encode(*part))
    check(again, step(view), equal=True)
    view.eval()
    with pytest.raises(AssertionError):  # there is dropout
        check(again, step(view))


def test_activations_of_one_part_are_alive_at_a_time(encoder_folder) -> None:
    view = made(encoder_folder)
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def note(module: nn.Module, given: object, result: Tensor) -> None:
        nonlocal most
        alive.append(weakref.ref(result))
        most = max(most, sum(own() is not None for own in alive))

    view.encoder.encoder.layer[0].intermediate.register_forward_hook(note)
    step(view)
    assert most == 2  # of the texts and of those that are masked
    alive, most = [], 0
    view.micro_batch = 1
    step(view)
    assert len(alive) == 2 * 2 * len(TOKENS)
    assert most <= 2


def test_without_gradients_texts_are_encoded_at_once(encoder_folder, monkeypatch) -> None:
    view = made(encoder_folder).eval()
    view.micro_batch = 1
    monkeypatch.setattr(text_module, "checkpoint", None)
    with torch.no_grad():
        in_parts = view(torch.arange(5), TEXT, MASKED)[0]
        view.micro_batch = 0
        at_once = view(torch.arange(5), TEXT, MASKED)[0]
    assert torch.equal(in_parts, at_once)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.__name__)
@pytest.mark.parametrize("size", [0, 2])
def test_bf16_is_close_and_its_gradients_are_float32(encoder_folder, mode, size) -> None:
    view = made(encoder_folder, mode).eval()
    exact, wanted = step(view)
    view.dtype, view.micro_batch = torch.bfloat16, size
    values, gradients = step(view)
    assert values.dtype == torch.float32
    assert not torch.equal(values, exact)
    torch.testing.assert_close(values, exact, rtol=0.05, atol=0.05)
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        assert gradient.dtype == torch.float32
        near = torch.cosine_similarity(gradient.flatten(), wanted[name].flatten(), dim=0)
        assert near > 0.9 or wanted[name].norm() < 1e-3, name
