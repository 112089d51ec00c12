"""FLM: the views of users and items, fused and aligned in one space."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flm_torchrec.data.batch import FLMBatch, ItemRows, MaskedText, TextRows, UserRows
from flm_torchrec.views.fusion import Fusion
from flm_torchrec.views.history import CausalHistory
from flm_torchrec.views.sparse import SparseView
from flm_torchrec.views.text import TextView


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """M encoded items."""

    row: Tensor  # (M, D), the fused vector
    views: Tensor  # (V, M, D), in the order of FLM.view_names
    present: Tensor  # (V, M) bool
    weights: Tensor  # (M, V), what the fusion gave each view
    features: Tensor  # (M, F * d), the embeddings of the single features
    masked_states: Tensor  # (K, S, H), token states of the masked texts; K = 0 without text
    token_embedding: Tensor  # (W, H), the encoder's token embeddings


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """U encoded users."""

    states: Tensor  # (U, L + 1, D), state t = the user after t events of the window
    features: Tensor  # (U, F * d)


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """What the tasks see."""

    users: Users
    items: Items


class FLM(nn.Module):
    """Users and items as vectors whose dot product ranks.

    Example:
        flm = FLM(
            user_view=SparseView(user_tables, dim=64), item_view=SparseView(item_tables, dim=64),
            text_view=None, fusion=MeanFusion(num_views=1, dim=64),
            history=CausalHistory(64, window=50, event_width=1),
        )
        views = flm(batch)
    """

    def __init__(
        self,
        *,
        user_view: SparseView,
        item_view: SparseView,
        text_view: TextView | None,
        fusion: Fusion,
        history: CausalHistory,
    ) -> None:
        super().__init__()
        self.user_view = user_view
        self.item_view = item_view
        self.text_view = text_view
        self.fusion = fusion
        self.history = history
        self.view_names = ("features",) if text_view is None else ("features", "text")

    def items(self, items: ItemRows, text: TextRows, masked: MaskedText) -> Items:
        """Encode the batch's M items once."""
        row, features = self.item_view(items.features)
        views, present = [row], [torch.ones_like(items.row, dtype=torch.bool)]
        masked_states = token_embedding = torch.zeros(0, device=row.device)
        if self.text_view is not None:
            text_row, has_text, masked_states, token_embedding = self.text_view(
                items.row, text, masked
            )
            views.append(text_row)
            present.append(has_text)
        stacked, is_present = torch.stack(views), torch.stack(present)
        fused, weights = self.fusion(stacked, is_present)
        return Items(
            row=fused,
            views=stacked,
            present=is_present,
            weights=weights,
            features=torch.cat(features, dim=1),
            masked_states=masked_states,
            token_embedding=token_embedding,
        )

    def users(self, users: UserRows, item_rows: Tensor) -> Users:
        """Encode U users; `users.history` points into `item_rows` (M, D)."""
        row, features = self.user_view(users.features)
        states = self.history(row, item_rows[users.history], users.event_labels)
        return Users(states=states, features=torch.cat(features, dim=1))

    def forward(self, batch: FLMBatch) -> Views:
        """Encode the items, then the users through them."""
        items = self.items(batch.items, batch.text, batch.masked_text)
        users = self.users(batch.users, items.row)
        return Views(users=users, items=items)
