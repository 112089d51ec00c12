"""Language models by the text view's own encoder: the hidden tokens of a text, or each next one."""

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
        is_asked = target != -100
        logits = self.logits(masked.states[is_asked], masked.token_embedding)  # (n, W)
        return token_loss(logits, target, is_asked)


class CausalLM(nn.Module):
    """GPT's head (Radford et al., 2019): a decoder's states against its own token embeddings.

    The loss is the mean over the texts of the mean over each text's tokens but the first.
    """

    def forward(self, views: Views, batch: FLMBatch) -> Tensor:
        masked, target = views.masked, batch.masked_text.target
        assert masked is not None
        is_asked = target != -100
        logits = F.linear(masked.states[is_asked], masked.token_embedding)  # (n, W)
        return token_loss(logits, target, is_asked)


def token_loss(logits: Tensor, target: Tensor, is_asked: Tensor) -> Tensor:
    """logits (n, W) of the n tokens that are asked for, target (K, S), is_asked (K, S) bool ->
    scalar, the mean over the texts of the mean over each text's tokens."""
    loss = F.cross_entropy(logits, target[is_asked], reduction="none")
    share = is_asked / is_asked.sum(1, keepdim=True).clamp(min=1)
    return (loss * share[is_asked]).sum() / max(1, target.shape[0])
