"""What the heads of several labels stand on: one bottom, or a mixture of experts a label.

A bottom is a module (E, what an edge is seen by) -> T tensors (E, `width`), one a label.

Example:
    bottom = MMoE(192, num_tasks=2, experts=4, hidden=128, width=64, dropout=0.2)
    click, conversion = bottom(torch.randn(4096, 192))  # (4096, 64) each
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def layers(seen: int, *, hidden: int, width: int, dropout: float) -> list[nn.Module]:
    """Of a perceptron (E, seen) -> (E, width) with one hidden layer: a bottom or an expert; with
    `hidden` 0 of a linear layer alone, which overfits small data less."""
    if not hidden:
        return [nn.Linear(seen, width)]
    return [
        nn.Linear(seen, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, width),
        nn.ReLU(),
        nn.Dropout(dropout),
    ]


class SharedBottom(nn.Sequential):
    """One perceptron, whose output every label reads."""

    def __init__(
        self, seen: int, *, num_tasks: int, hidden: int, width: int, dropout: float
    ) -> None:
        super().__init__(*layers(seen, hidden=hidden, width=width, dropout=dropout))
        self.num_tasks = num_tasks
        self.width = width

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        """(E, seen) -> T times the same (E, width)"""
        return (super().forward(input),) * self.num_tasks


class Experts(nn.ModuleList):
    """Perceptrons side by side."""

    def __init__(self, seen: int, num: int, *, hidden: int, width: int, dropout: float) -> None:
        super().__init__(
            nn.Sequential(*layers(seen, hidden=hidden, width=width, dropout=dropout))
            for _ in range(num)
        )

    def forward(self, seen: Tensor) -> Tensor:
        """(E, seen) -> (E, experts, width)"""
        return torch.stack([expert(seen) for expert in self], dim=1)


def mixed(experts: Tensor, gate: Tensor) -> Tensor:
    """experts (E, K, W), gate (E, K) logits -> (E, W), weighted by the gate's softmax"""
    return (gate.softmax(1)[:, None] @ experts).squeeze(1)


class MMoE(nn.Module):
    """Experts that all labels share, mixed for each label by a gate of its own that reads the edge
    (Ma et al., KDD 2018)."""

    def __init__(
        self,
        seen: int,
        *,
        num_tasks: int,
        experts: int,
        hidden: int,
        width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.width = width
        self.experts = Experts(seen, experts, hidden=hidden, width=width, dropout=dropout)
        self.gates = nn.ModuleList(nn.Linear(seen, experts, bias=False) for _ in range(num_tasks))

    def forward(self, seen: Tensor) -> tuple[Tensor, ...]:
        """(E, seen) -> T times (E, width)"""
        experts = self.experts(seen)
        return tuple(mixed(experts, gate(seen)) for gate in self.gates)


class Extraction(nn.Module):
    """One layer of PLE: shared experts read the shared stream, a label's own experts its stream;
    the label's gate mixes its own and the shared ones, the shared gate all of them.

    The last layer of a PLE has no shared gate: nobody reads that stream.
    """

    def __init__(
        self,
        seen: int,
        *,
        num_tasks: int,
        experts: int,
        own_experts: int,
        hidden: int,
        width: int,
        dropout: float,
        is_last: bool,
    ) -> None:
        super().__init__()
        size = {"hidden": hidden, "width": width}
        self.shared = Experts(seen, experts, dropout=dropout, **size)
        self.own = nn.ModuleList(
            Experts(seen, own_experts, dropout=dropout, **size) for _ in range(num_tasks)
        )
        self.gates = nn.ModuleList(
            nn.Linear(seen, own_experts + experts, bias=False) for _ in range(num_tasks)
        )
        every = num_tasks * own_experts + experts
        self.shared_gate = None if is_last else nn.Linear(seen, every, bias=False)

    def forward(
        self, streams: Sequence[Tensor], shared: Tensor
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """T streams (E, seen) and the shared one -> T streams (E, width) and the shared one"""
        common = self.shared(shared)
        own = [experts(stream) for experts, stream in zip(self.own, streams, strict=True)]
        made = tuple(
            mixed(torch.cat([experts, common], dim=1), gate(stream))
            for experts, gate, stream in zip(own, self.gates, streams, strict=True)
        )
        if self.shared_gate is None:
            return made, shared
        return made, mixed(torch.cat([*own, common], dim=1), self.shared_gate(shared))


class PLE(nn.Module):
    """Progressive layered extraction: shared experts and each label's own, told apart over one
    layer or several (Tang et al., RecSys 2020)."""

    def __init__(
        self,
        seen: int,
        *,
        num_tasks: int,
        experts: int,
        own_experts: int,
        num_layers: int,
        hidden: int,
        width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        self.width = width
        self.layers = nn.ModuleList(
            Extraction(
                width if layer else seen,
                num_tasks=num_tasks,
                experts=experts,
                own_experts=own_experts,
                hidden=hidden,
                width=width,
                dropout=dropout,
                is_last=layer == num_layers - 1,
            )
            for layer in range(num_layers)
        )

    def forward(self, seen: Tensor) -> tuple[Tensor, ...]:
        """(E, seen) -> T times (E, width)"""
        streams, shared = (seen,) * self.num_tasks, seen
        for layer in self.layers:
            streams, shared = layer(streams, shared)
        return streams


class Adapter(nn.Module):
    """A label's own small change to what it reads: down to a bottleneck, up again, added to it
    (Houlsby et al., ICML 2019). It starts as the identity."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(E, width) -> (E, width)"""
        return hidden + self.up(self.down(hidden).relu())
