"""The batch: E edges over U users and M distinct items, each encoded once.

Windows, edges and losses refer to users and items by their row number in the batch. Item row 0 is
always the unknown item: histories are padded with it.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Self, cast

import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable


class TensorBatch(Pipelineable):
    """Base of batch dataclasses: moves every tensor, KJT or nested batch among the fields."""

    def _map(self, method: str, *args: Any, **kwargs: Any) -> Self:
        moved = {}
        for each in fields(cast(Any, self)):
            value = getattr(self, each.name)
            movable = isinstance(value, Tensor | Pipelineable)
            moved[each.name] = getattr(value, method)(*args, **kwargs) if movable else value
        return type(self)(**moved)

    def to(self, device: torch.device, non_blocking: bool = False) -> Self:
        """A copy on `device`."""
        return self._map("to", device=device, non_blocking=non_blocking)

    def pin_memory(self) -> Self:
        """A copy in page-locked memory."""
        return self._map("pin_memory")

    def record_stream(self, stream: torch.Stream) -> None:
        """Keep the memory until `stream` is done with it."""
        for each in fields(cast(Any, self)):
            value = getattr(self, each.name)
            if isinstance(value, Tensor | Pipelineable):
                value.record_stream(cast(Any, stream))


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRows(TensorBatch):
    """U users, each at one moment, with the window of L events behind it."""

    row: Tensor  # (U,) int64, row in the table of users; 0 = unknown
    features: KeyedJaggedTensor  # stride U
    numbers: Tensor  # (U, Fn) float32 in [-1, 1]
    history: Tensor  # (U, L) int64, rows of the batch's items; 0 where there is no event
    num_events: Tensor  # (U,) int64, events in the window; they stand first
    session: Tensor  # (U, L) int64, rising from 0: which session of the window an event is of
    event_labels: Tensor  # (U, L, F) float32, what each event told (its rating, ...), NaN = missing
    gap: Tensor  # (U, L) float32, log time since the event before it in the window, about 0..1
    hidden: Tensor  # (U, H) int64, events of the window to be found though hidden; -1 = none
    # (S,) int64, with known_item pairs met before the window, in it by no event, or at any time
    known_user: Tensor
    known_item: Tensor  # (S,) int64, rows of the batch's items
    behind: KeyedJaggedTensor | None = None  # stride U, as `Edges.behind`, of users without edges


@dataclass(frozen=True, slots=True, kw_only=True)
class ClozeRows(TensorBatch):
    """C items of which an attribute is hidden."""

    item: Tensor  # (C,) int64, row in the catalogue of items
    target: Tensor  # (C, P) int64, the attribute's values, rows of its vocabulary; 0 = none

    @classmethod
    def none(cls) -> "ClozeRows":
        """C = 0."""
        none = torch.zeros(0, 1, dtype=torch.int64)
        return cls(item=none[:, 0], target=none)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRows(TensorBatch):
    """M items; the last N of them are the negatives that every edge is scored against.

    Behind them stand the C items of `cloze`, since a table is called once a step.
    """

    row: Tensor  # (M,) int64, row in the catalogue of items; 0 = unknown
    features: KeyedJaggedTensor  # stride M + C
    numbers: Tensor  # (M + C, Fn) float32 in [-1, 1]
    first: Tensor  # (M,) int64, the first of the batch's rows that holds the same item
    log_q: Tensor  # (N,) float32, log of the expected number of times each negative is drawn
    aligned: Tensor  # (A,) int64, distinct rows of the batch whose views are to agree
    ids: KeyedJaggedTensor | None = None  # stride M, of those that training met
    domain: Tensor | None = None  # (M,) int64, of several, in which alone an item competes
    never_met: Tensor | None = None  # (N,) bool, those of the negatives that nobody could choose
    cloze: ClozeRows = field(default_factory=ClozeRows.none)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRows(TensorBatch):
    """K texts in tokens, encoded with gradient in this step."""

    item: Tensor  # (K,) int64, the batch's item row each text belongs to
    name: Tensor  # (K,) int64, which of the item's texts it is
    tokens: Tensor  # (K, S) int64
    attention: Tensor  # (K, S) int64, 1 = a token

    @classmethod
    def none(cls) -> "TextRows":
        """K = 0."""
        none = torch.zeros(0, 1, dtype=torch.int64)
        return cls(item=none[:, 0], name=none[:, 0], tokens=none, attention=none)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedText(TensorBatch):
    """Texts for the language model: with tokens hidden, or, of a causal one, as they are."""

    tokens: Tensor  # (K, S) int64, 15% of them replaced
    attention: Tensor  # (K, S) int64, 1 = a token
    target: Tensor  # (K, S) int64, the hidden or the next token; -100 where there is none

    @classmethod
    def none(cls) -> "MaskedText":
        """K = 0."""
        none = torch.zeros(0, 1, dtype=torch.int64)
        return cls(tokens=none, attention=none, target=none)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges(TensorBatch):
    """E interactions: a user, at a step of the window, met an item, and what came of it.

    Weights are such that a loss is `(weight * loss).sum()`: over the edges of all ranks they add
    up to the world size, so that the mean over the ranks is the mean over the global batch.
    """

    user: Tensor  # (E,) int64, row of the batch's users; 0 where there are none
    step: Tensor  # (E,) int64, the user's state: how many events of the window are behind it
    item: Tensor  # (E,) int64, row of the batch's items; 0 where there are none
    time: Tensor  # (E,) int64, seconds
    weight: Tensor  # (E,) float32, for ranking; 0 = no positive, or padding
    is_negative: Tensor  # (E,) bool, shown and no positive
    impression: Tensor  # (E,) int64 below E, edges of one number were shown at once
    labels: Tensor  # (E, T) float32, 0 where missing
    label_weight: Tensor  # (E, T) float32, 0 where missing
    context: KeyedJaggedTensor | None  # stride E
    behind: KeyedJaggedTensor | None = None  # stride E, ids of the events behind, by recency
    numbers: Tensor  # (E, Fc) float32 in [-1, 1], the context's numbers
    aligned: Tensor  # (B,) int64, ranked edges whose user and item are to agree; -1 = none


@dataclass(frozen=True, slots=True, kw_only=True)
class FLMBatch(TensorBatch):
    """One step of one rank."""

    edges: Edges
    users: UserRows | None
    items: ItemRows | None
    text: TextRows
    masked_text: MaskedText
