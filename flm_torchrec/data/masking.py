"""Hide tokens of a text for the masked language model."""

import numpy as np

IGNORED = -100


def hide_tokens(
    tokens: np.ndarray,
    is_word: np.ndarray,
    *,
    mask_token: int,
    vocabulary: int,
    rng: np.random.Generator,
    share: float = 0.15,
) -> tuple[np.ndarray, np.ndarray]:
    """BERT's rule (Devlin et al., 2019): of the hidden tokens 80% become the mask token, 10% a
    random token, 10% stay.

    tokens (K, S) int64, is_word (K, S) bool, True where a token may be hidden. At least one token
    of every text with words is hidden. -> tokens with some replaced, targets (K, S) int64: the
    original where hidden, -100 elsewhere.
    """
    chance = np.where(is_word, rng.random(tokens.shape), 2.0)
    hidden = chance < share
    lowest = chance.argmin(1)
    rows = np.flatnonzero(is_word.any(1))
    hidden[rows, lowest[rows]] = True
    target = np.where(hidden, tokens, IGNORED)
    kind = rng.random(tokens.shape)
    replaced = np.where(hidden & (kind < 0.8), mask_token, tokens)
    is_random = hidden & (kind >= 0.8) & (kind < 0.9)
    return np.where(is_random, rng.integers(0, vocabulary, tokens.shape), replaced), target
