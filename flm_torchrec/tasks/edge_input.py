"""What the heads see of an edge: user, item, context, and how their features act together."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.model import Views


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What the heads of a data set read of an edge."""

    dim: int  # D
    has_user: bool
    has_item: bool
    num_features: int  # of user, item and context together
    num_numbers: int  # the same

    @property
    def num_vectors(self) -> int:
        """Vectors that a cross layer sees: of the features, the state and the item, and one of the
        numbers and a constant."""
        return self.num_features + self.has_user + self.has_item + 1

    @property
    def features_width(self) -> int:
        """Entries of all features' embeddings."""
        return self.num_features * self.dim


class EdgeInput(nn.Module):
    """The user's state before the edge, the item, their product, all numbers of both and of the
    context, and the embeddings of the single features side by side or, with a `cross`, what that
    makes of all vectors: a module (E, F, D) -> (E, width), with F = `inputs.num_vectors` and
    `width` for an attribute, such as `FM` or `DCNv2`.
    """

    def __init__(self, inputs: Inputs, *, cross: nn.Module | None = None) -> None:
        super().__init__()
        self.cross = cross
        self.numbers = None
        crossed = inputs.features_width
        if cross is not None:
            crossed = int(cast(Any, cross).width)
            # With a constant among the vectors their products hold each vector alone too.
            self.numbers = nn.Linear(1 + inputs.num_numbers, inputs.dim, bias=False)
        rows = inputs.has_user + inputs.has_item + (inputs.has_user and inputs.has_item)
        self.width = rows * inputs.dim + crossed + inputs.num_numbers

    def forward(self, views: Views, batch: FLMBatch) -> tuple[Tensor, list[Tensor]]:
        """-> (E, width) what a bottom sees; (E, F, D) each, the embeddings of the features of user,
        item and context"""
        edges, rows, features, numbers = batch.edges, [], [], [batch.edges.numbers]
        if views.users is not None and batch.users is not None:
            rows.append(views.users.states[edges.user, edges.step])
            features.append(views.users.features[edges.user])
            numbers.append(batch.users.numbers[edges.user])
        if views.items is not None and batch.items is not None:
            rows.append(views.items.row[edges.item])
            features.append(views.items.features[edges.item])
            numbers.append(batch.items.numbers[edges.item])
        if views.context is not None:
            features.append(views.context)
        product = [rows[0] * rows[1]] if len(rows) == 2 else []
        every_number = torch.cat(numbers, dim=1)
        if self.cross is None or self.numbers is None:
            crossed = [vectors.flatten(1) for vectors in features]
        else:
            constant = self.numbers(F.pad(every_number, (1, 0), value=1.0))
            alone = [vector[:, None] for vector in (*rows, constant)]
            crossed = [self.cross(torch.cat([*features, *alone], dim=1))]
        return torch.cat([*rows, *product, *crossed, every_number], dim=1), features
