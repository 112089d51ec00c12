"""The linear path: the next item from the recency-weighted history, in closed form."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flm_torchrec.data.batch import Edges, ItemRows, UserRows
from flm_torchrec.data.recency import EARLIER_SESSION, KERNEL

_FLOOR = 1e-3  # of a linear score: what lies below is noise


def recency(distance: Tensor) -> Tensor:
    """How much an event counts that lies `distance` events back; of any shape."""
    return torch.stack([share * torch.exp(-distance / scale) for share, scale in KERNEL]).sum(0)


def history_weight(step: Tensor, session: Tensor) -> Tensor:
    """step (B,) events behind each moment, session (B, L) the number of each event's session
    -> (B, L), 0 where an event is not behind."""
    place = torch.arange(session.shape[1], device=session.device)
    distance = step[:, None] - 1 - place
    last = session.gather(1, (step[:, None] - 1).clamp(min=0))
    weight = recency(distance.clamp(min=0).to(torch.float32))
    return weight * torch.where(session < last, EARLIER_SESSION, 1.0) * (distance >= 0)


class LinearPath(nn.Module):
    """What the events of a user's window say of the next item, added to the scores as
    `scale * log(max(h W, 0) + 1e-3)`: h (items,) holds the recency of each event, W is the ridge
    regression of the next item on it (`linear_fit`), as EASE (Steck, 2019) is without an order.

    W is read as a table of which a moment's history is one weighted bag. In training each user's
    comes from the other users (stacking, Wolpert, 1992): a user's own next items fit too well.
    `boost` is added to the learned scale where nothing is trained: what else is in the scores has
    learned from the very sequences it was trained beside the path on, and is too sure of them.

    Example:
        path = LinearPath()
        path.weight = next_item_weights(...)  # (1 + folds, items, items)
        path(batch.users, batch.items, batch.edges)  # (E, 1 + N)
    """

    weight: Tensor  # (1 + folds, items, items) rows = history, columns = next; [0] of all users

    def __init__(self, *, boost: float = 0.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.boost = boost
        # Fitted from the data, as text vectors are computed from texts: not in checkpoints.
        self.register_buffer("weight", torch.zeros(1, 0, 0), persistent=False)

    def forward(self, users: UserRows, items: ItemRows, edges: Edges) -> Tensor:
        """-> (E, 1 + N): of each edge's item, and of the batch's negatives."""
        table, history = self.seen(users, items)
        history, weight = history[edges.user], history_weight(edges.step, users.session[edges.user])
        own = (table[history, items.row[edges.item][:, None]] * weight).sum(1, keepdim=True)
        if items.log_q.shape[0] == 0:
            return self.log(own)
        negatives = bags(self.of_negatives(table, items), history, weight)
        return self.log(torch.cat([own, negatives], dim=1))

    def seen(self, users: UserRows, items: ItemRows) -> tuple[Tensor, Tensor]:
        """-> weights (R, items), and which rows of them the events of each user have (U, L)"""
        history = items.row[users.history]
        if not self.training:
            return self.weight[0], history
        fold = 1 + users.row % (self.weight.shape[0] - 1)
        return self.weight.flatten(0, 1), history + fold[:, None] * self.weight.shape[1]

    def of_negatives(self, table: Tensor, items: ItemRows) -> Tensor:
        """(R, items) -> (R, N)"""
        num_negatives = items.log_q.shape[0]
        if num_negatives == table.shape[1]:  # the whole catalogue, in its order
            return table
        return table[:, items.row[-num_negatives:]]

    def catalogue(self, users: UserRows) -> Tensor:
        """-> (U, items), after the last event; `users.history` holds catalogue rows."""
        weight = history_weight(users.num_events, users.session)
        return self.log(bags(self.weight[0], users.history, weight))

    def log(self, score: Tensor) -> Tensor:
        """What a score h W adds."""
        scale = self.scale if self.training else self.scale + self.boost
        return scale * (score.clamp(min=0) + _FLOOR).log()


def bags(table: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """table (R, N), rows (B, L), weight (B, L) -> (B, N)"""
    return F.embedding_bag(rows, table, per_sample_weights=weight, mode="sum")
