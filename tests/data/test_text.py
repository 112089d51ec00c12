import numpy as np
import pytest
from transformers import AutoTokenizer

from flm_torchrec.data.text import held_out_texts, tokenise

CLS, SEP, PAD, MASK, UNKNOWN = 2, 3, 0, 4, 1
RED, BLUE, CAR = 5, 6, 8  # as tiny_model.WORDS has them


@pytest.fixture(scope="module")
def table(encoder_folder):
    texts = ["", "red car", "  ", "blue red car", "car strange"]
    return tokenise(texts, AutoTokenizer.from_pretrained(encoder_folder), max_tokens=8)


def test_texts_become_tokens_padded_at_the_end(table):
    assert table.tokens[1].tolist() == [CLS, RED, CAR, SEP, PAD]
    assert table.tokens[3].tolist() == [CLS, BLUE, RED, CAR, SEP]
    assert table.tokens[4].tolist() == [CLS, CAR, UNKNOWN, SEP, PAD]
    assert (table.mask_token, table.vocabulary) == (MASK, 12)


def test_an_empty_text_has_no_tokens(table):
    assert table.length.tolist() == [0, 4, 0, 5, 4]
    assert (table.tokens[[0, 2]] == PAD).all()


def test_words_are_what_is_neither_padding_nor_special(table):
    assert table.is_word[1].tolist() == [False, True, True, False, False]
    assert not table.is_word[[0, 2]].any()


def test_rows_are_taken_no_wider_than_the_longest(table):
    tokens, attention = table.take(np.array([1, 0]))
    assert tokens.tolist() == [[CLS, RED, CAR, SEP], [PAD] * 4]
    assert attention.tolist() == [[1] * 4, [0] * 4]
    tokens, attention = table.take(np.array([0]))
    assert tokens.shape == attention.shape == (1, 1)


def test_long_texts_are_cut(encoder_folder):
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder)
    table = tokenise(["", "blue red car car"], tokenizer, max_tokens=4)
    assert table.tokens[1].tolist() == [CLS, BLUE, RED, SEP]


def test_a_catalogue_without_any_text_has_no_tokens(encoder_folder):
    table = tokenise(["", ""], AutoTokenizer.from_pretrained(encoder_folder), max_tokens=4)
    assert table.length.tolist() == [0, 0]
    assert held_out_texts(table).tolist() == []


def test_a_tenth_of_the_texts_is_held_out_and_always_the_same(encoder_folder):
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder)
    table = tokenise(["", *["red car"] * 40], tokenizer, max_tokens=8)
    held_out = held_out_texts(table)
    assert len(held_out) == len(set(held_out)) == 4
    assert 0 not in held_out
    assert (held_out == np.sort(held_out)).all()
    assert (held_out == held_out_texts(table)).all()
