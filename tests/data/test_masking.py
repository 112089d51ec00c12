import numpy as np
import pytest

from flm_torchrec.data.masking import IGNORED, hide_events, hide_tokens

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


def test_a_share_of_each_users_events_is_hidden_and_at_least_one():
    events = np.array([0, 1, 4, 10])
    rng = np.random.default_rng(0)
    hidden = np.stack([hide_events(events, 10, 0.3, rng) for _ in range(300)])
    assert hidden.shape == (300, 4, 3)
    for user, (num, count) in enumerate(zip(events, [0, 1, 1, 3], strict=True)):
        places = hidden[:, user]
        assert ((places >= 0).sum(1) == count).all()
        assert set(places[places >= 0]) == set(range(num))
        assert all(len({*row[row >= 0]}) == count for row in places)


def test_nothing_is_hidden_without_a_share_or_a_window():
    assert hide_events(np.array([3]), 4, 0.0, np.random.default_rng(0)).shape == (1, 0)
    assert hide_events(np.array([0]), 0, 0.5, np.random.default_rng(0)).shape == (1, 0)
