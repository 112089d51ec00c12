from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from flm_torchrec.data.collate import Collator
from flm_torchrec.data.negatives import AllItems, PopularItems
from flm_torchrec.data.sampling import UserSampler, histories, sequences
from flm_torchrec.data.text import Texts, TokenTable
from flm_torchrec.errors import UserError

DATASET = tiny.dataset()
HISTORIES = histories(DATASET.interactions, before_part=1)
SAMPLER = UserSampler(
    sequences(DATASET.interactions, before_part=1), users=2, window=3, reverse=0.0, seed=0
)
# Two texts an item: a title of 2 tokens (item 7 has none), a body of 3 that only items 1-3 have;
# then two texts of a corpus.
LENGTH = np.array([0, 2, 2, 2, 2, 2, 2, 0, 2, 0, 3, 3, 3, 0, 0, 0, 0, 0, 4, 4])
TABLE = TokenTable(
    tokens=np.arange(20)[:, None] * 10 + np.arange(4),
    length=LENGTH,
    is_word=np.arange(4) < LENGTH[:, None],
    mask_token=5,
    vocabulary=200,
)
POOL = np.flatnonzero(LENGTH)[1:]
TEXTS = Texts(table=TABLE, num_names=2, num_items=9, masked_pool=POOL)


def step(*, texts=TEXTS, negatives=None, rank=0, world_size=1, number=0, **more):
    collator = Collator(
        DATASET,
        HISTORIES,
        window=3,
        negatives=negatives or AllItems(num_items=9),
        text=texts,
        rank=rank,
        world_size=world_size,
        **more,
    )
    return collator.step(SAMPLER, number)


def popular(count: int) -> PopularItems:
    return PopularItems(np.bincount(DATASET.interactions.item, minlength=9), count=count, power=0.0)


def texts_of(batch) -> set[tuple[int, int]]:
    rows = batch.items.row[batch.text.item].tolist()
    return set(zip(batch.text.name.tolist(), rows, strict=True))


@pytest.mark.parametrize("negatives", [None, popular(6)])
def test_texts_to_encode_are_those_of_what_was_met_first(negatives):
    for number in range(6):
        batch = step(negatives=negatives, number=number, text_rows=3)
        met = set(batch.items.row[batch.edges.item].tolist()) - {0}
        own = {(0, item) for item in met if item != 7} | {(1, item) for item in met if item < 4}
        assert len(texts_of(batch)) == 3
        assert texts_of(batch) <= own
    every = texts_of(step(text_rows=10))
    assert every == {(0, item) for item in (1, 2, 3, 4, 5, 6, 8)} | {(1, 1), (1, 2), (1, 3)}


def test_texts_come_with_their_own_tokens():
    batch = step(text_rows=10)
    rows = batch.text.name * 9 + batch.items.row[batch.text.item]
    tokens, attention = TABLE.take(rows.numpy())
    assert batch.text.tokens.tolist() == tokens.tolist()
    assert batch.text.attention.tolist() == attention.tolist()


def test_an_item_in_several_rows_has_its_texts_in_the_first():
    batch = step(negatives=popular(30), text_rows=5)
    assert (batch.items.first[batch.text.item] == batch.text.item).all()


def test_texts_of_a_step_that_holds_fewer_are_encoded_again():
    batch = step(text_rows=13)
    assert len(texts_of(batch)) == 10
    assert batch.text.item.shape == (13,)


def test_a_step_without_any_text_is_an_error():
    none = replace(TEXTS, table=replace(TABLE, length=np.zeros_like(LENGTH)))
    with pytest.raises(UserError, match=r"views\.text\.rows: 2 texts a rank, but none"):
        step(texts=none, text_rows=2)


@pytest.mark.parametrize("negatives", [None, popular(6)])
def test_items_are_aligned_once_each_and_only_where_they_have_text(negatives):
    items = step(negatives=negatives, aligned_rows=50).items
    aligned = items.row[items.aligned].tolist()
    assert len(aligned) == 50  # the unknown item fills up
    assert sorted(row for row in aligned if row) == sorted(set(items.row.tolist()) - {0, 7})


def test_the_masked_texts_of_one_rank_are_shared_out_among_two():
    whole = step(masked_rows=6).masked_text
    for rank in (0, 1):
        half = step(masked_rows=3, rank=rank, world_size=2).masked_text
        for name in ("tokens", "attention", "target"):
            assert (getattr(half, name) == getattr(whole, name)[rank::2]).all()


def test_masked_texts_come_from_the_pool_of_items_and_corpus():
    masked = step(masked_rows=200).masked_text
    original = torch.where(masked.target == -100, masked.tokens, masked.target)
    assert {tuple(row) for row in original.tolist()} == {
        tuple(row) for row in TABLE.tokens[POOL].tolist()
    }


def test_a_corpus_needs_no_sampler():
    collator = Collator(
        DATASET, HISTORIES, window=3, negatives=popular(5), text=TEXTS, masked_rows=4
    )
    batch = collator.step(None, 7)
    assert batch.edges.user.shape == (0,)
    assert batch.masked_text.tokens.shape == (4, 4)
