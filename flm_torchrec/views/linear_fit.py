"""The weights of the linear path, fitted on training histories in closed form."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from flm_torchrec.data.next_items import NextItems
from flm_torchrec.data.sampling import Rows
from flm_torchrec.ease import ease_weights
from flm_torchrec.views.linear import history_weight

# Of columns' lengths in `fill_cold`, chosen by four folds of ML-100K's warm items.
_POPULARITY, _PRIOR = 0.35, 5.0


def next_item_weights(
    moments: NextItems,
    *,
    num_items: int,
    window: int,
    l2: float,
    reverse: float,
    folds: int = 4,
) -> Tensor:
    """-> W (1 + folds, num_items, num_items) float32, each minimising
    `sum |h W - next|^2 + l2 |W|^2` over moments; W[0] over all, W[1 + k] without those of the users
    with `user % folds == k`.

    h (num_items,) holds the latest `window` events by recency, next is 1 at the item met. The same
    moments read backwards in time count `reverse` as much: what goes together mostly does so in
    either order. Needs memory for (3 folds + 6) num_items^2 floats, and (1 + folds) 2 num_items^3
    operations for what is solved.
    """
    # The last is over all.
    gram = torch.zeros(folds + 1, num_items, num_items)
    cross = torch.zeros_like(gram)  # [history, next]
    for fold in range(folds):
        own = np.flatnonzero(moments.user % folds == fold)
        for share, is_reversed in ((1.0, False), (reverse, True)):
            history = _histories(moments, own, window, num_items, is_reversed=is_reversed)
            transposed = history.transpose(0, 1).to_sparse_csr()
            gram[fold] += share * torch.sparse.mm(transposed, history).to_dense()
            met = torch.from_numpy(moments.item[own]).repeat_interleave(window)
            place = history.col_indices() * num_items + met
            cross[fold].view(-1).index_add_(0, place, history.values(), alpha=share)
        gram[folds] += gram[fold]
        cross[folds] += cross[fold]
    weight = torch.empty_like(gram)
    weight[0] = _ridge(gram[folds], cross[folds], l2)
    for fold in range(folds):
        weight[1 + fold] = _ridge(gram[folds] - gram[fold], cross[folds] - cross[fold], l2)
    return weight


def item_weights(
    moments: NextItems, *, num_items: int, l2: float, folds: int = 4, block: int = 1024
) -> Tensor:
    """-> W (1 + folds, num_items, num_items) float32, the `ease_weights` of the users' sets of
    items; W[0] over all users, W[1 + k] without those with `user % folds == k`.

    Memory and operations as for `next_item_weights`.
    """
    gram = torch.zeros(folds + 1, num_items, num_items)
    owner = np.arange(len(moments.offsets) - 1).repeat(np.diff(moments.offsets))
    for fold in range(folds):
        own = np.flatnonzero(owner % folds == fold)
        users, place = np.unique(owner[own], return_inverse=True)
        for start in range(0, len(users), block):
            rows = (place >= start) & (place < start + block)
            met = torch.zeros(min(block, len(users) - start), num_items)
            met[place[rows] - start, moments.event_item[own[rows]]] = 1.0
            gram[fold].addmm_(met.T, met)
        gram[folds] += gram[fold]
    return torch.stack([ease_weights(gram[folds] - part, l2) for part in (0.0, *gram[:folds])])


def _histories(
    moments: NextItems, rows: Rows, window: int, num_items: int, *, is_reversed: bool
) -> Tensor:
    """-> (len(rows), num_items) sparse, `window` entries a row: 0 where there is no event"""
    item, session = moments.histories(rows, window, is_reversed=is_reversed)
    weight = history_weight(torch.full((len(rows),), window), torch.from_numpy(session))
    weight = weight * torch.from_numpy(item > 0)
    with warnings.catch_warnings():
        # That sparse tensors are in beta.
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(
            torch.arange(0, item.size + 1, window),
            torch.from_numpy(item.reshape(-1)),
            weight.reshape(-1),
            (len(rows), num_items),
            check_invariants=False,
        )


def fill_cold(
    weight: Tensor, warm: Tensor, cold: Tensor, content: Tensor, met: Tensor, *, l2: float = 1.0
) -> None:
    """Give the items that no fit met the weights that their content foretells.

    weight (fits, items, items), changed in place; warm (n,) and cold (m,) items; content (items, F)
    on the device of `weight`; met (n,) how often training met each warm item. A ridge regression on
    the content of the warm items foretells a cold item's column (when it is next) and then its row
    (what is next after it); the mean of the warm items' is not shrunk. Columns are regressed over
    `(met + 5)^.35`, which is foretold by its logarithm: a column is as long as its item is popular,
    and content tells whose column it is like better than how long it is.
    """
    if len(warm) == 0 or len(cold) == 0:
        return
    foretold = foretelling(content, warm, cold, l2=l2)
    popularity = _POPULARITY * (met + _PRIOR).log()[:, None]
    length = foretold(popularity).exp()
    for fit in weight:
        fit[:, cold] = (foretold(fit[:, warm].T / popularity.exp()) * length).T
        fit[cold] = foretold(fit[warm])


def foretelling(
    content: Tensor, warm: Tensor, cold: Tensor, *, l2: float = 1.0
) -> Callable[[Tensor], Tensor]:
    """content (items, F) -> a function from what is known (n, d) of the warm items to what a ridge
    regression on content makes of it for the cold ones (m, d); the mean is not shrunk."""
    mean = content[warm].mean(0)
    old, new = content[warm] - mean, content[cold] - mean
    factor = _factor(old.T @ old, l2)

    def foretold(known: Tensor) -> Tensor:
        known_mean = known.mean(0)
        return new @ torch.cholesky_solve(old.T @ (known - known_mean), factor) + known_mean

    return foretold


def _ridge(gram: Tensor, cross: Tensor, l2: float) -> Tensor:
    """(gram + l2)^-1 cross"""
    return torch.cholesky_solve(cross, _factor(gram, l2))


def _factor(gram: Tensor, l2: float) -> Tensor:
    """That of Cholesky of gram + l2."""
    return torch.linalg.cholesky(gram + l2 * torch.eye(len(gram), device=gram.device))
