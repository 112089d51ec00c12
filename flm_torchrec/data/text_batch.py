"""The texts of a batch: those encoded with gradient, and those masked for the language model."""

import numpy as np
import torch
from numpy.typing import NDArray

from flm_torchrec.data.batch import MaskedText, TextRows
from flm_torchrec.data.masking import hide_tokens, next_tokens
from flm_torchrec.data.text import Texts, TokenTable
from flm_torchrec.errors import UserError


def text_rows(
    texts: Texts | None,
    rows: NDArray[np.int64],
    history: NDArray[np.int64],
    count: int,
    rng: np.random.Generator,
) -> TextRows:
    """`count` texts of the batch's items, first those that histories and edges hold.

    rows (M,) catalogue rows of the batch's items, history (n,) the rows of them that are met. An
    item that stands in several rows has its texts in the first.
    """
    if texts is None or count == 0:
        return TextRows.none()
    distinct, first = np.unique(rows, return_index=True)
    table_rows = texts.row(np.arange(texts.num_names)[:, None], distinct)
    name, place = np.nonzero(texts.table.length[table_rows] > 0)
    item = first[place]
    if not len(item):
        raise UserError(
            f"views.text.rows: {count} texts a rank, but none of the items of a step has one; "
            "allowed: rows: 0 with mode: frozen, more users or negatives"
        )
    is_met = np.isin(rows[item], rows[history])
    # A key below 1 for what is met, above for the rest: the smallest are a random draw.
    order = np.argsort(rng.random(len(item)) + ~is_met)
    chosen = np.resize(order, count)  # over and over where a step holds fewer
    item, name = item[chosen], name[chosen]
    tokens, attention = texts.table.take(texts.row(name, rows[item]))
    return TextRows(
        item=torch.from_numpy(item),
        name=torch.from_numpy(name),
        tokens=torch.from_numpy(tokens),
        attention=torch.from_numpy(attention),
    )


def masked_rows(
    texts: Texts | None, count: int, rng: np.random.Generator, *, rank: int, world_size: int
) -> MaskedText:
    """A rank's `count` of the texts that all ranks draw to be masked."""
    if texts is None or count == 0:
        return MaskedText.none()
    rows = rng.choice(texts.masked_pool, size=count * world_size)
    return masked_batch(texts.table, rows, rng, own=slice(rank, None, world_size))


def masked_batch(
    table: TokenTable, rows: NDArray[np.int64], rng: np.random.Generator, *, own: slice
) -> MaskedText:
    """The texts of `rows` with tokens hidden, or with each next token as the target; of the draw
    for all of them, those in `own`."""
    tokens, attention = table.take(rows)
    if table.mask_token is None:
        hidden, target = tokens, next_tokens(tokens, attention)
    else:
        hidden, target = hide_tokens(
            tokens,
            table.is_word[rows, : tokens.shape[1]],
            mask_token=table.mask_token,
            vocabulary=table.vocabulary,
            rng=rng,
        )
    return MaskedText(
        tokens=torch.from_numpy(hidden[own]),
        attention=torch.from_numpy(attention[own]),
        target=torch.from_numpy(target[own]),
    )
