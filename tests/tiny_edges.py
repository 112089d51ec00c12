"""Two edges made by hand, of 1 user and 2 items of 2 dimensions, and heads over them."""

import torch
from tiny_model import batch as batch_of
from tiny_model import views as views_of
from torch import nn

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.model import Views
from flm_torchrec.tasks.bottoms import SharedBottom
from flm_torchrec.tasks.edge_input import EdgeInput, Inputs
from flm_torchrec.tasks.heads import Head, Heads

STATES = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
ROW = torch.tensor([[0.0, 0.0], [0.5, 1.0], [2.0, 0.1]])
# Features: 1 of the user, 2 of the item.
USER = torch.tensor([[[7.0, 0.5]]])
ITEM = torch.tensor([[[0.0, 0.0]] * 2, [[5.0, 6.0], [1.0, 1.0]], [[8.0, 9.0], [2.0, 2.0]]])
INPUTS = Inputs(dim=2, has_user=True, has_item=True, num_features=3, num_numbers=0)
NO_LABELS = torch.zeros(2, 0)
SEEN = torch.tensor(
    [
        [1, 2, 0.5, 1, 0.5, 2, 7, 0.5, 5, 6, 1, 1],
        [3, 4, 2, 0.1, 6, 0.4, 7, 0.5, 8, 9, 2, 2],
    ]
)  # state, item, state * item, user features, item features


class AsSeen(nn.Module):
    """A bottom that changes nothing."""

    def __init__(self, num_tasks: int, width: int = SEEN.shape[1]) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        self.width = width

    def forward(self, seen: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (seen,) * self.num_tasks


def heads(
    named: dict[str, Head],
    inputs: Inputs = INPUTS,
    *,
    cross: nn.Module | None = None,
    bottom: nn.Module | None = None,
    hidden: int = 8,
    **more,
) -> Heads:
    torch.manual_seed(0)
    edge_input = EdgeInput(inputs, cross=cross)
    size = {"num_tasks": len(named), "hidden": hidden, "width": 2, "dropout": 0.0}
    return Heads(named, edge_input, bottom or SharedBottom(edge_input.width, **size), **more).eval()


def views() -> Views:
    return views_of(states=STATES, row=ROW, user_features=USER, item_features=ITEM)


def batch(labels: torch.Tensor, label_weight: torch.Tensor) -> FLMBatch:
    return batch_of([[1, 2]], item_row=[0, 1, 2], labels=labels, label_weight=label_weight)
