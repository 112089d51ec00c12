"""Targets of language models: hidden or next tokens of a text; and hidden events of a history."""

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


def next_tokens(tokens: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """tokens (K, S), attention (K, S), 1 = a token -> (K, S) the token after each; -100 without."""
    target = np.full_like(tokens, IGNORED)
    target[:, :-1] = np.where(attention[:, 1:] > 0, tokens[:, 1:], IGNORED)
    return target


def hide_events(
    num_events: np.ndarray, window: int, share: float, rng: np.random.Generator
) -> np.ndarray:
    """num_events (U,), of at most `window` -> (U, H) int64 places of a `share` of each user's
    events, at least one, drawn at random; -1 fills up. H is the same for every draw."""
    if share == 0 or window == 0:
        return np.zeros((len(num_events), 0), dtype=np.int64)
    most = max(1, round(share * window))
    # A key below 1 for events, above for the rest: the smallest are a random draw.
    key = rng.random((len(num_events), window)) + (np.arange(window) >= num_events[:, None])
    count = np.minimum(np.maximum(1, np.rint(share * num_events)), num_events)
    place = np.argsort(key, axis=1)[:, :most]
    return np.where(np.arange(most) < count[:, None], place, -1)
