"""Texts as tokens: of the items, by name, and of a corpus."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenTable:
    """The tokens of all texts."""

    tokens: NDArray[np.int64]  # (rows, S), padded at the end
    length: NDArray[np.int64]  # (rows,) tokens of each row; 0 without text
    is_word: NDArray[np.bool_]  # (rows, S), False for padding and special tokens
    mask_token: int | None  # None: an encoder of it learns each next token instead
    vocabulary: int

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray, NDArray]:
        """rows (K,) -> tokens (K, S'), attention (K, S') int64, cut at the longest of them."""
        longest = max(1, int(self.length[rows].max(initial=0)))
        attention = np.arange(longest) < self.length[rows][:, None]
        return self.tokens[rows, :longest], attention.astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Texts:
    """The texts of a data set: name by name those of all items, then those of the corpus."""

    table: TokenTable
    num_names: int  # texts an item has
    num_items: int  # rows of the catalogue
    masked_pool: NDArray[np.int64]  # rows that the masked language model trains on

    def row(self, name: NDArray[np.int64], item: NDArray[np.int64]) -> NDArray[np.int64]:
        """The table's row of an item's text `name`, both (n,)."""
        return name * self.num_items + item


def tokenise(texts: Sequence[str], tokenizer: Any, *, max_tokens: int) -> TokenTable:
    """Tokens of every text with a Hugging Face tokenizer, cut at `max_tokens`."""
    encoded = tokenizer(
        list(texts), truncation=True, max_length=max_tokens, return_special_tokens_mask=True
    )
    has_text = np.array([bool(text.strip()) for text in texts])
    length = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64) * has_text
    width = max(1, int(length.max(initial=0)))
    tokens = np.full((len(length), width), tokenizer.pad_token_id, dtype=np.int64)
    is_word = np.zeros((len(length), width), dtype=bool)
    filled = np.arange(width) < length[:, None]
    kept = [row for row, has in enumerate(has_text) if has]
    if kept:
        tokens[filled] = np.concatenate([encoded["input_ids"][row] for row in kept])
        special = np.concatenate([encoded["special_tokens_mask"][row] for row in kept])
        is_word[filled] = special == 0
    return TokenTable(
        tokens=tokens,
        length=length,
        is_word=is_word,
        mask_token=tokenizer.mask_token_id,
        vocabulary=len(tokenizer),
    )


def held_out_texts(table: TokenTable, *, share: float = 0.1, seed: int = 0) -> NDArray[np.int64]:
    """Rows whose text the masked language model never trains on: (n,) int64, sorted."""
    rows = np.flatnonzero(table.is_word.any(1))
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(rows, size=round(share * len(rows)), replace=False))
