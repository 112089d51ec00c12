"""The text view: any Hugging Face encoder, its vectors cached where it isn't trained."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from flm_torchrec.data.batch import MaskedText, TextRows
from flm_torchrec.views.layers_below import StatesBelow, above, layers_of
from flm_torchrec.views.rank_allocation import RankAllocation


class TextView(nn.Module):
    """Mean-pooled token states of an encoder, or if `last_token` (a decoder's) its last token's,
    brought to the joint width: a view a text.

    All texts share the encoder; each has a projection of its own. Rows named by a batch's
    `TextRows` are encoded with gradient; all others use the vector that `vectors` holds for the
    item. What of the encoder isn't trained stays in evaluation mode.

    With `micro_batch` a step encodes so many texts at a time and keeps nothing of them but the
    result: backward encodes them again. `dtype` is that of the encoder's products; parameters,
    gradients and all that comes out are float32. `ranks` are those of AdaLoRA's adapters:
    `allocate_ranks` is to be called after each optimizer step.

    Example:
        view = TextView(AutoModel.from_pretrained(folder), hidden=384, dim=64, names=("title",))
        view.vectors = vectors  # (1, num_items, 384), from `text_vectors`
        rows, has_text, masked_states, token_embedding = view(item_rows, text, masked_text)
    """

    vectors: Tensor  # (T, num_items, H), 0 = no text
    hidden_vectors: Tensor  # the same of texts that leave an attribute out

    def __init__(
        self,
        encoder: nn.Module,
        *,
        hidden: int,
        dim: int,
        names: Sequence[str] = ("text",),
        last_token: bool = False,
        micro_batch: int = 0,
        dtype: torch.dtype = torch.float32,
        ranks: RankAllocation | None = None,
    ) -> None:
        super().__init__()
        self.last_token = last_token
        self.micro_batch = micro_batch
        self.dtype = dtype
        self.ranks = ranks
        self.encoder = encoder
        self.hidden = hidden
        self.dim = dim
        self.names = tuple(names)
        # Of all texts, where the layers below those that train are kept rather than run.
        self.below: StatesBelow | None = None
        # A list: in a ModuleDict a text could not be called `type` or `items`.
        self.projections = nn.ModuleList(nn.Linear(hidden, dim) for _ in names)
        for projection in self.projections:
            assert isinstance(projection, nn.Linear)
            # Rows start as small as those of the tables; else text alone decides the first scores.
            nn.init.normal_(projection.weight, std=0.02 / hidden**0.5)
            nn.init.zeros_(projection.bias)
        # In the view rather than in the batches: those that a pipeline has drawn ahead of a
        # renewal then use the new vectors, as they do in a run that resumes there.
        vectors = torch.zeros(len(self.names), 0, hidden)
        self.register_buffer("vectors", vectors, persistent=False)
        self.register_buffer("hidden_vectors", vectors.clone(), persistent=False)
        self.train()

    def train(self, mode: bool = True) -> "TextView":
        """As `nn.Module.train`, but for what isn't trained."""
        super().train(mode)
        for module in self.encoder.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self

    def allocate_ranks(self, step: int, *, steps: int) -> None:
        """After step `step` of `steps`, while its gradients are there."""
        if self.ranks is not None:
            self.ranks.allocate(self.encoder, step, steps=steps)

    def in_its_precision(self, device: torch.device) -> torch.autocast:
        """What of the encoder runs in it has products in `dtype`."""
        return torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32)

    def token_states(self, tokens: Tensor, attention: Tensor, row: Tensor | None = None) -> Tensor:
        """(K, S) -> (K, S, H); `row` (K,) names texts of which `below` may be kept."""
        with self.in_its_precision(tokens.device):
            if row is None or self.below is None:
                states = self.encoder(input_ids=tokens, attention_mask=attention).last_hidden_state
            else:
                given = self.below.padded(row, tokens.shape[1])
                states = above(self.encoder, given, attention, last=self.below.last)
        return states.float()

    def token_embedding(self) -> Tensor:
        """(W, H), the encoder's own token embeddings."""
        return cast(Any, self.encoder).get_input_embeddings().weight

    def encode(self, tokens: Tensor, attention: Tensor, row: Tensor | None = None) -> Tensor:
        """(K, S) -> (K, H) of length sqrt(H): the mean over the tokens, or the last of them, as
        the cache holds it. `row` as in `token_states`."""
        states = self.token_states(tokens, attention, row)
        weight = attention.to(states.dtype)
        if self.last_token:
            weight = weight * (weight.cumsum(1) == weight.sum(1, keepdim=True))
        mean = torch.einsum("ksh,ks->kh", states, weight) / weight.sum(1, keepdim=True)
        return nn.functional.normalize(mean, dim=1) * self.hidden**0.5

    def forward(
        self,
        item: Tensor | None,
        text: TextRows,
        masked: MaskedText,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """item (M,) or None -> rows (T, M, D), has_text (T, M) bool, masked token states
        (K, S, H) and token embeddings (W, H). Behind the M rows stand those of the items `hidden`
        (C,), whose texts leave an attribute out."""
        embedding = self.token_embedding()
        states = embedding.new_zeros(*masked.tokens.shape, self.hidden)
        rows, has_text = embedding.new_zeros(0, 0, self.dim), states.new_zeros(0, 0).bool()
        if item is not None and self.names:
            rows, has_text = self._rows(item, text, item[:0] if hidden is None else hidden)
        if masked.tokens.shape[0] > 0:
            states = self._in_parts(self.token_states, masked.tokens, masked.attention)
        return rows, has_text, states, embedding

    def _rows(self, item: Tensor, text: TextRows, hidden: Tensor) -> tuple[Tensor, Tensor]:
        cached = torch.cat([self.vectors[:, item], self.hidden_vectors[:, hidden]], dim=1)
        if text.item.shape[0] > 0:
            row = self.below and self.below.row(text.name, item[text.item])
            given = (text.tokens, text.attention, *(() if row is None else (row,)))
            fresh = self._in_parts(self.encode, *given)
            cached = cached.index_put((text.name, text.item), fresh)
        projected = zip(self.projections, cached, strict=True)
        return torch.stack([project(rows) for project, rows in projected]), (cached != 0).any(2)

    def _in_parts(self, encode: Callable[..., Tensor], *texts: Tensor) -> Tensor:
        """`encode` of texts (K, ...), `micro_batch` of them at a time."""
        if not self.micro_batch or not torch.is_grad_enabled():
            return encode(*texts)
        parts = zip(*(rows.split(self.micro_batch) for rows in texts), strict=True)
        return torch.cat([checkpoint(encode, *part, use_reentrant=False) for part in parts])


def freeze(encoder: nn.Module, mode: Literal["frozen", "last_n", "full"], *, last: int) -> None:
    """Let `encoder` train as a whole (`full`), in its last layers (`last_n`) or not at all.

    The layers are the encoder's longest `nn.ModuleList`.
    """
    if mode == "full":
        return
    encoder.requires_grad_(False)
    if mode == "last_n":
        for layer in layers_of(encoder)[1][-last:]:
            layer.requires_grad_(True)
