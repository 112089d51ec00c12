"""The linear path as the product of two tables, for catalogues whose pairs are too many."""

import torch
from torch import Tensor, nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from flm_torchrec.data.batch import Edges, ItemRows, UserRows
from flm_torchrec.views.linear import history_weight
from flm_torchrec.views.sparse import SparseView


class LowRankPath(nn.Module):
    """What the events of a user's window say of the next item, added to the scores as `h A B'`: h
    (items,) holds the recency of each event, A and B (items, r) are learned with all else.

    A row of A or B is that of the item's id in a table, which an item that training never met has
    none of, plus a projection of its fused row (D,), which starts at 0. So a moment's history is a
    weighted bag of ids, of a table that TorchRec shards, and a weighted sum of projected rows. It
    is FPMC (Rendle et al., 2010) with a whole history in place of the last basket.

    Example:
        path = LowRankPath(SparseView(weighted_bags, dim=32), SparseView(bags, dim=32), dim=64)
        next_row = path.items(batch.items.ids, rows)  # (M, 32)
        path(batch.users, batch.items, batch.edges, rows, next_row)  # (E, 1 + N)
    """

    def __init__(self, history: SparseView, following: SparseView, *, dim: int) -> None:
        super().__init__()
        self.history = history
        self.following = following
        self.history_content = _HistoryContent(dim, history.dim)
        self.following_content = _projection(dim, following.dim)
        self.scores = _Scores()

    def items(self, ids: KeyedJaggedTensor, rows: Tensor) -> Tensor:
        """ids of stride M, fused rows (M, D) -> rows of B (M, r)"""
        row, _ = self.following(ids)
        return row + self.following_content(rows)

    def states(
        self, behind: KeyedJaggedTensor, users: UserRows, user: Tensor, step: Tensor, rows: Tensor
    ) -> Tensor:
        """behind of stride B: what stands before `step` (B,) in the windows of `user` (B,), of
        items with fused rows (M, D) -> h A (B, r)"""
        row, _ = self.history(behind)
        return row + self.history_content(users.history, users.session, rows)[user, step]

    def forward(
        self, users: UserRows, items: ItemRows, edges: Edges, rows: Tensor, next_row: Tensor
    ) -> Tensor:
        """rows (M, D), next_row (M, r) -> (E, 1 + N): of each edge's item, and of the batch's
        negatives."""
        assert edges.behind is not None, "the batch has no bags of ids"
        state = self.states(edges.behind, users, edges.user, edges.step, rows)
        return self.scores(state, next_row, edges.item, items.log_q)

    def catalogue(self, users: UserRows, rows: Tensor, next_row: Tensor) -> Tensor:
        """rows and next_row of the catalogue, into which `users.history` points -> (U, items),
        after the last event"""
        assert users.behind is not None, "the users have no bags of ids"
        every = torch.arange(users.row.shape[0], device=users.row.device)
        state = self.states(users.behind, users, every, users.num_events, rows)
        return state @ next_row.T


def _projection(dim: int, rank: int) -> nn.Linear:
    projection = nn.Linear(dim, rank, bias=False)
    nn.init.zeros_(projection.weight)
    return projection


# No parts of `LowRankPath`'s own forward: that one is traced, which free Python can't be.


class _HistoryContent(nn.Module):
    """The projected rows of the items of a history, weighted by recency, after each event."""

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__()
        self.projection = _projection(dim, rank)

    def forward(self, history: Tensor, session: Tensor, rows: Tensor) -> Tensor:
        """(U, L), (U, L), (M, D) -> (U, L + 1, r)"""
        num_users, window = history.shape
        step = torch.arange(window + 1, device=history.device).repeat(num_users)
        weight = history_weight(step, session.repeat_interleave(window + 1, dim=0))
        return weight.view(num_users, window + 1, window) @ self.projection(rows)[history]


class _Scores(nn.Module):
    """The products of moments' states with the items of edges and with the negatives."""

    def forward(self, state: Tensor, next_row: Tensor, item: Tensor, log_q: Tensor) -> Tensor:
        """(E, r), (M, r), (E,), (N,) -> (E, 1 + N)"""
        own = (state * next_row[item]).sum(1, keepdim=True)
        negatives = next_row[next_row.shape[0] - log_q.shape[0] :]
        return torch.cat([own, state @ negatives.T], dim=1)
