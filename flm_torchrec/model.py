"""FLM: the views of users, items and their encounters, fused and aligned in one space."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flm_torchrec.data.batch import FLMBatch, ItemRows, MaskedText, TextRows, UserRows
from flm_torchrec.views.fusion import Fusion
from flm_torchrec.views.history import CausalHistory, History
from flm_torchrec.views.linear import LinearPath
from flm_torchrec.views.low_rank import LowRankPath
from flm_torchrec.views.sparse import SparseView
from flm_torchrec.views.text import TextView
from flm_torchrec.views.vector import VectorView


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """M encoded items."""

    row: Tensor  # (M, D), the fused vector
    views: Tensor  # (V, M, D), in the order of FLM.view_names
    present: Tensor  # (V, M) bool
    weights: Tensor  # (M, V), what the fusion gave each view
    features: Tensor  # (M, F, D), the embeddings of the single features
    next_row: Tensor | None = None  # (M, r), what a low-rank linear path scores
    hidden: Tensor | None = None  # (C, D), the fused vectors of those with an attribute hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """U encoded users."""

    states: Tensor  # (U, L + 1, D), state t = the user after t events of the window
    features: Tensor  # (U, F, D)
    hidden: Tensor | None = None  # (U, H, D), what all other events say of each hidden one


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """Texts with hidden tokens, encoded."""

    states: Tensor  # (K, S, H), of their tokens
    token_embedding: Tensor  # (W, H), the encoder's token embeddings


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """What the tasks see; None is what the data has none of."""

    users: Users | None = None
    items: Items | None = None
    context: Tensor | None = None  # (E, F, D), the embeddings of the edges' features
    masked: Masked | None = None
    linear: Tensor | None = None  # (E, 1 + N) added to the scores of an edge's item and negatives


class FLM(nn.Module):
    """Users and items as vectors whose dot product ranks, and what else is known of an edge.

    Example:
        flm = FLM(
            user_view=SparseView(user_tables, dim=64), item_view=SparseView(item_tables, dim=64),
            fusion=MeanFusion(num_views=1, dim=64),
            history=CausalHistory(64, window=50, event_width=1),
        )
        views = flm(batch)
    """

    def __init__(
        self,
        *,
        user_view: SparseView | None = None,
        item_view: SparseView | None = None,
        context_view: SparseView | None = None,
        text_view: TextView | None = None,
        vector_views: Mapping[str, VectorView] | None = None,
        fusion: Fusion | None = None,
        history: History | None = None,
        linear: LinearPath | None = None,
        low_rank: LowRankPath | None = None,
    ) -> None:
        super().__init__()
        assert (item_view is None) == (fusion is None), "items are fused"
        self.user_view = user_view
        self.item_view = item_view
        self.context_view = context_view
        self.text_view = text_view
        vectors = dict(vector_views or {})
        # A list: in a ModuleDict a vector could not be called `type` or `items`.
        self.vector_views = nn.ModuleList(vectors.values())
        self.fusion = fusion
        self.history = history
        self.hides_events = isinstance(history, CausalHistory) and history.hidden_event is not None
        self.linear = linear
        self.low_rank = low_rank
        # Without a history a user's state is what the features say.
        self.norm = None
        if history is None and user_view is not None:
            self.norm = nn.LayerNorm(user_view.dim)
        texts = () if text_view is None else text_view.names
        self.view_names = () if item_view is None else ("features", *texts, *vectors)

    def items(
        self, items: ItemRows, text: TextRows, masked: MaskedText
    ) -> tuple[Items, Masked | None]:
        """Encode the batch's M items once, and in the same pass those of which an attribute is
        hidden and the masked texts."""
        assert self.item_view is not None
        assert self.fusion is not None
        row, features = self.item_view(items.features, items.numbers)
        hidden = items.cloze.item
        # A vector may tell of any attribute: where one is hidden, there is none.
        vector_of = torch.cat([items.row, torch.zeros_like(hidden)])
        views, present = [row[None]], [torch.ones_like(vector_of, dtype=torch.bool)[None]]
        encoded = None
        if self.text_view is not None:
            rows, has_text, states, embedding = self.text_view(items.row, text, masked, hidden)
            views.append(rows)
            present.append(has_text)
            encoded = Masked(states=states, token_embedding=embedding)
        for vector_view in self.vector_views:
            vector_row, has_vector = vector_view(vector_of)
            views.append(vector_row[None])
            present.append(has_vector[None])
        stacked, is_present = torch.cat(views), torch.cat(present)
        fused, weights = self.fusion(stacked, is_present)
        num_items = items.row.shape[0]
        next_row = None
        if self.low_rank is not None and items.ids is not None:
            next_row = self.low_rank.items(items.ids, fused[:num_items])
        return Items(
            row=fused[:num_items],
            views=stacked[:, :num_items],
            present=is_present[:, :num_items],
            weights=weights[:num_items],
            features=features[:num_items],
            next_row=next_row,
            hidden=fused[num_items:],
        ), encoded

    def users(self, users: UserRows, item_rows: Tensor | None) -> Users:
        """Encode U users; `users.history` points into `item_rows` (M, D)."""
        assert self.user_view is not None
        row, features = self.user_view(users.features, users.numbers)
        if self.norm is not None:
            return Users(states=self.norm(row)[:, None], features=features)
        assert self.history is not None
        assert item_rows is not None
        events = item_rows[users.history]
        known = row, events, users.event_labels, users.gap, users.num_events
        # Where training hides none the parameters take part all the same, as on the other ranks.
        hides = self.hides_events and (self.training or users.hidden.shape[1] > 0)
        hidden = self.history(*known, users.hidden) if hides else None
        return Users(states=self.history(*known), features=features, hidden=hidden)

    def forward(self, batch: FLMBatch) -> Views:
        """Encode the items, then the users through them, then the edges' context."""
        items = users = context = masked = linear = None
        if self.item_view is not None:
            assert batch.items is not None, "the batch has no items"
            items, masked = self.items(batch.items, batch.text, batch.masked_text)
        elif self.text_view is not None:
            _, _, states, embedding = self.text_view(None, batch.text, batch.masked_text)
            masked = Masked(states=states, token_embedding=embedding)
        if self.user_view is not None:
            assert batch.users is not None, "the batch has no users"
            users = self.users(batch.users, None if items is None else items.row)
        if self.context_view is not None:
            assert batch.edges.context is not None, "the batch has no context"
            context = self.context_view.features(batch.edges.context)
        if self.linear is not None:
            linear = self.linear(batch.users, batch.items, batch.edges)
        elif self.low_rank is not None:
            assert items is not None, "histories are of items"
            rows = items.row, items.next_row
            linear = self.low_rank(batch.users, batch.items, batch.edges, *rows)
        return Views(users=users, items=items, context=context, masked=masked, linear=linear)
