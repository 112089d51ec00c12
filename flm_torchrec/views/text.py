"""The text view: any Hugging Face encoder, its vectors cached where it isn't trained."""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from flm_torchrec.data.batch import MaskedText, TextRows


class TextView(nn.Module):
    """Mean-pooled token states of an encoder, brought to the joint width.

    Rows named by a batch's `TextRows` are encoded with gradient; all others use their cached
    vector.

    Example:
        view = TextView(AutoModel.from_pretrained(folder), hidden=384, dim=64)
        rows, masked_states, token_embedding = view(cached, text, masked_text)
    """

    def __init__(self, encoder: nn.Module, *, hidden: int, dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.hidden = hidden
        self.project = nn.Linear(hidden, dim)
        # Rows start as small as those of the tables; else text alone decides the first scores.
        nn.init.normal_(self.project.weight, std=0.02 / hidden**0.5)
        nn.init.zeros_(self.project.bias)

    def token_states(self, tokens: Tensor, attention: Tensor) -> Tensor:
        """(K, S) -> (K, S, H)"""
        return self.encoder(input_ids=tokens, attention_mask=attention).last_hidden_state

    def token_embedding(self) -> Tensor:
        """(W, H), the encoder's own token embeddings."""
        return cast(Any, self.encoder).get_input_embeddings().weight

    def encode(self, tokens: Tensor, attention: Tensor) -> Tensor:
        """(K, S) -> (K, H) of length sqrt(H): the mean over the tokens, as the cache holds it."""
        states = self.token_states(tokens, attention)
        weight = attention.to(states.dtype)
        mean = torch.einsum("ksh,ks->kh", states, weight) / weight.sum(1, keepdim=True)
        return nn.functional.normalize(mean, dim=1) * self.hidden**0.5

    def forward(
        self, cached: Tensor, text: TextRows, masked: MaskedText
    ) -> tuple[Tensor, Tensor, Tensor]:
        """cached (M, H) -> rows (M, D), masked token states (K, S, H), token embeddings (W, H)."""
        if text.item.shape[0] > 0:
            cached = cached.index_copy(0, text.item, self.encode(text.tokens, text.attention))
        embedding = self.token_embedding()
        states = cached.new_zeros(*masked.tokens.shape, self.hidden)
        if masked.tokens.shape[0] > 0:
            states = self.token_states(masked.tokens, masked.attention)
        return self.project(cached), states, embedding


def freeze(encoder: nn.Module, mode: Literal["frozen", "last_n", "full"], *, last: int) -> None:
    """Let `encoder` train as a whole (`full`), in its last layers (`last_n`) or not at all.

    The layers are the encoder's longest `nn.ModuleList`. What isn't trained has no dropout.
    """
    if mode == "full":
        return
    encoder.requires_grad_(False)
    trained: list[nn.Module] = []
    if mode == "last_n":
        lists = [module for module in encoder.modules() if isinstance(module, nn.ModuleList)]
        layers = max(lists, key=len, default=nn.ModuleList())
        trained = list(layers[-last:])
    for layer in trained:
        layer.requires_grad_(True)
    kept = {id(module) for layer in trained for module in layer.modules()}
    for module in encoder.modules():
        if isinstance(module, nn.Dropout) and id(module) not in kept:
            module.p = 0.0
