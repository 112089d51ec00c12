import numpy as np
import pytest

from flm_torchrec.data.masking import IGNORED, hide_tokens

MASK, VOCABULARY = 4, 1000


def hide(tokens, is_word, *, seed=0):
    return hide_tokens(
        tokens,
        is_word,
        mask_token=MASK,
        vocabulary=VOCABULARY,
        rng=np.random.default_rng(seed),
    )


def long_text() -> tuple[np.ndarray, np.ndarray]:
    tokens = np.random.default_rng(1).integers(5, VOCABULARY, (200, 200))
    is_word = np.ones(tokens.shape, dtype=bool)
    is_word[:, [0, -1]] = False
    return tokens, is_word


def test_15_percent_are_hidden_and_of_them_80_masked_10_random_10_kept():
    tokens, is_word = long_text()
    replaced, target = hide(tokens, is_word)
    hidden = target != IGNORED
    assert hidden[is_word].mean() == pytest.approx(0.15, abs=0.01)
    masked, kept = (replaced == MASK)[hidden], (replaced == tokens)[hidden]
    assert masked.mean() == pytest.approx(0.8, abs=0.02)
    assert kept.mean() == pytest.approx(0.1, abs=0.02)
    assert (~masked & ~kept).mean() == pytest.approx(0.1, abs=0.02)


def test_random_tokens_come_from_the_whole_vocabulary():
    tokens, is_word = long_text()
    replaced, target = hide(tokens, is_word)
    random = replaced[(target != IGNORED) & (replaced != MASK) & (replaced != tokens)]
    assert 0 <= random.min() < 50
    assert VOCABULARY - 50 < random.max() < VOCABULARY


def test_targets_are_the_hidden_tokens_and_nothing_else_changes():
    tokens, is_word = long_text()
    replaced, target = hide(tokens, is_word)
    hidden = target != IGNORED
    assert (target[hidden] == tokens[hidden]).all()
    assert (replaced[~hidden] == tokens[~hidden]).all()


def test_special_tokens_are_never_hidden():
    tokens, is_word = long_text()
    _, target = hide(tokens, is_word)
    assert (target[~is_word] == IGNORED).all()


def test_at_least_one_token_of_every_text_with_words_is_hidden():
    tokens = np.tile(np.array([2, 7, 8, 3, 0]), (500, 1))
    is_word = np.tile(np.array([False, True, True, False, False]), (500, 1))
    is_word[0] = False
    _, target = hide(tokens, is_word)
    hidden = (target != IGNORED).sum(1)
    assert hidden[0] == 0
    assert hidden[1:].min() == 1
    assert hidden[1:].max() == 2


def test_masking_is_a_function_of_the_generator():
    tokens, is_word = long_text()
    once, again, other = (hide(tokens, is_word, seed=seed)[0] for seed in (3, 3, 4))
    assert (once == again).all()
    assert (once != other).any()
