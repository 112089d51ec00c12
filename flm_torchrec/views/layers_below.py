"""The layers of an encoder below those that train: their states of a text never change."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StatesBelow:
    """What goes into the first layer that trains, of all texts, one token after another."""

    last: int  # layers that train
    states: Tensor  # (N, H)
    start: Tensor  # (rows + 1,) int64, the first token of each text, which stand in order
    num_items: int

    def row(self, name: Tensor, item: Tensor) -> Tensor:
        """(K,) of an item's text of that name."""
        return name * self.num_items + item

    def padded(self, row: Tensor, longest: int) -> Tensor:
        """row (K,) -> (K, longest, H), as the tokens are padded at their end."""
        place = self.start[row][:, None] + torch.arange(longest, device=row.device)
        return self.states[place.clamp(max=len(self.states) - 1)]


class _Given(nn.Module):
    """In the place of an encoder's embeddings: the states that it was given for them."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return next(
            value
            for value in (*args, *kwargs.values())
            if isinstance(value, Tensor) and value.is_floating_point()
        )


def layers_of(encoder: nn.Module) -> tuple[str, nn.ModuleList]:
    """The name and the modules of the encoder's longest list, its layers."""
    lists = [(name, m) for name, m in encoder.named_modules() if isinstance(m, nn.ModuleList)]
    return max(lists, key=lambda named: len(named[1]), default=("", nn.ModuleList()))


def below(encoder: nn.Module, tokens: Tensor, attention: Tensor, *, last: int) -> Tensor:
    """(K, S) -> (K, S, H) what goes into the first of the `last` layers."""
    _, layers = layers_of(encoder)
    seen: list[Tensor] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])

    hook = layers[-last].register_forward_pre_hook(note, with_kwargs=True)
    try:
        encoder(input_ids=tokens, attention_mask=attention)
    finally:
        hook.remove()
    return seen[0]


def above(encoder: nn.Module, states: Tensor, attention: Tensor, *, last: int) -> Tensor:
    """(K, S, H) what goes into the first of the `last` layers -> (K, S, H) the token states.

    It is the encoder itself without its first layers, whose modules are shared, not copied.
    """
    path, layers = layers_of(encoder)
    upper = _with(encoder, path.split("."), nn.ModuleList(layers[-last:]))
    upper = _with(upper, ["embeddings"], _Given())
    return upper(inputs_embeds=states, attention_mask=attention).last_hidden_state


def can_be_cut(encoder: nn.Module, tokens: Tensor, attention: Tensor, *, last: int) -> bool:
    """Whether `above` of `below` is the encoder, as it is of those put together as BERT is."""
    children = dict(encoder.named_children())
    if "embeddings" not in children or "embeddings_project" in children:
        return False
    whole = encoder(input_ids=tokens, attention_mask=attention).last_hidden_state
    cut = above(encoder, below(encoder, tokens, attention, last=last), attention, last=last)
    is_token = attention.bool()
    return torch.allclose(cut[is_token], whole[is_token], rtol=1e-3, atol=1e-4)


def _with(module: nn.Module, path: Sequence[str], part: nn.Module) -> nn.Module:
    """A shallow copy of `module` with another submodule at `path`; all others are shared."""
    copied = copy.copy(module)
    copied._modules = dict(module._modules)
    name, *rest = path
    inner = module._modules[name]
    assert inner is not None
    copied._modules[name] = _with(inner, rest, part) if rest else part
    return copied
