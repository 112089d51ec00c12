"""The linear path where order must not matter: an item from all other events, in closed form."""

import torch
from torch import Tensor

from flm_torchrec.data.batch import Edges, ItemRows, UserRows
from flm_torchrec.views.linear import LinearPath, bags


class SetLinearPath(LinearPath):
    """As `LinearPath`, with h (items,) 1 at all events of a user's window but the edge's own, and W
    that of EASE (Steck, 2019; `linear_fit.item_weights`)."""

    def forward(self, users: UserRows, items: ItemRows, edges: Edges) -> Tensor:
        """-> (E, 1 + N): of each edge's item, and of the batch's negatives."""
        table, history = self.seen(users, items)
        is_event, user, step = _is_event(users), edges.user, edges.step
        place = torch.arange(history.shape[1], device=step.device)
        is_other = is_event[user] & (place != step[:, None])
        item = items.row[edges.item][:, None]
        own = (table[history[user], item] * is_other).sum(1, keepdim=True)
        if items.log_q.shape[0] == 0:
            return self.log(own)
        columns = self.of_negatives(table, items)
        # All events of a user once, less the edge's own: not a bag for every edge.
        every = bags(columns, history, is_event.to(columns.dtype))[user]
        is_inside = (step < users.num_events[user])[:, None]
        own_row = history[user, step.clamp(max=history.shape[1] - 1)]
        negatives = every - columns[own_row] * is_inside
        return self.log(torch.cat([own, negatives], dim=1))

    def catalogue(self, users: UserRows) -> Tensor:
        """-> (U, items), from all events; `users.history` holds catalogue rows."""
        weight = _is_event(users).to(self.weight.dtype)
        return self.log(bags(self.weight[0], users.history, weight))


def _is_event(users: UserRows) -> Tensor:
    """(U, L) bool"""
    place = torch.arange(users.history.shape[1], device=users.history.device)
    return place < users.num_events[:, None]
