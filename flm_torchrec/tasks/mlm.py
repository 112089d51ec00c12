"""Masked language model: the hidden tokens of a text, by the text view's own encoder."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.model import Views


class MaskedLM(nn.Module):
    """BERT's head (Devlin et al., 2019): a transform, then the encoder's own token embeddings.

    The loss is the mean over the texts of the mean over each text's hidden tokens.
    """

    def __init__(self, *, hidden: int, vocabulary: int) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(hidden, hidden), nn.GELU(), nn.LayerNorm(hidden))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def logits(self, states: Tensor, token_embedding: Tensor) -> Tensor:
        """states (n, H), token_embedding (W, H) -> (n, W)"""
        return F.linear(self.transform(states), token_embedding, self.bias)

    def forward(self, views: Views, batch: FLMBatch) -> Tensor:
        masked, target = views.masked, batch.masked_text.target
        assert masked is not None
        is_hidden = target != -100
        logits = self.logits(masked.states[is_hidden], masked.token_embedding)  # (n, W)
        loss = F.cross_entropy(logits, target[is_hidden], reduction="none")
        share = is_hidden / is_hidden.sum(1, keepdim=True).clamp(min=1)
        return (loss * share[is_hidden]).sum() / max(1, target.shape[0])
