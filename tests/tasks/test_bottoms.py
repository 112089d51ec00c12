import math

import pytest
import tiny
import tiny_model
import torch
from torch import nn

from flm_torchrec.tasks.bottoms import PLE, Adapter, MMoE, SharedBottom

SIZE = {"num_tasks": 2, "hidden": 6, "width": 3, "dropout": 0.0}
BOTTOMS = {
    "shared": lambda: SharedBottom(4, **SIZE),
    "mmoe": lambda: MMoE(4, experts=3, **SIZE),
    "ple": lambda: PLE(4, experts=2, own_experts=1, num_layers=2, **SIZE),
}


class Times(nn.Module):
    """An expert that multiplies."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return self.factor * seen


def put(experts: nn.ModuleList, *factors: float) -> None:
    assert len(experts) == len(factors)
    for place, factor in enumerate(factors):
        experts[place] = Times(factor)


def put_gate(gate: nn.Linear, *weights: float) -> None:
    """Logits are the weights times the only entry of what the gate reads."""
    with torch.no_grad():
        gate.weight.copy_(torch.tensor(weights)[:, None])


def share(*logits: float) -> list[float]:
    total = sum(math.exp(logit) for logit in logits)
    return [math.exp(logit) / total for logit in logits]


@pytest.mark.parametrize("name", BOTTOMS)
def test_there_is_one_output_of_the_width_a_label(name):
    bottom = BOTTOMS[name]()
    made = bottom(torch.randn(5, 4))
    assert [tuple(of_task.shape) for of_task in made] == [(5, 3), (5, 3)]
    assert bottom.width == 3


@pytest.mark.parametrize("name", ["mmoe", "ple"])
def test_every_parameter_of_a_mixture_gets_a_gradient(name):
    bottom = BOTTOMS[name]()
    made = bottom(torch.randn(50, 4))
    sum((of_task.square()).sum() for of_task in made).backward()
    for parameter_name, parameter in bottom.named_parameters():
        assert parameter.grad.abs().sum() > 0, parameter_name


def test_all_labels_read_the_same_of_a_shared_bottom():
    first, second = BOTTOMS["shared"]()(torch.randn(5, 4))
    assert first is second


def test_a_bottom_without_a_hidden_layer_is_linear():
    bottom = SharedBottom(4, **SIZE | {"hidden": 0, "dropout": 0.5})
    first, second = torch.randn(2, 5, 4)
    nothing = bottom(torch.zeros(5, 4))[0]
    made = [bottom(seen)[0] - nothing for seen in (first, second, first + second)]
    torch.testing.assert_close(made[0] + made[1], made[2])


def test_each_gate_of_an_mmoe_mixes_the_experts_by_what_the_edge_is():
    bottom = MMoE(1, num_tasks=2, experts=2, hidden=1, width=1, dropout=0.0)
    put(bottom.experts, 10.0, 20.0)
    put_gate(bottom.gates[0], 0.0, math.log(3))
    put_gate(bottom.gates[1], 0.0, 0.0)
    first, second = bottom(torch.tensor([[1.0], [2.0]]))
    # log 3 times 1 and 2: odds of 3 and of 9 for the second expert.
    assert first[:, 0].tolist() == pytest.approx([17.5, 2 * 19.0])
    assert second[:, 0].tolist() == pytest.approx([15.0, 2 * 15.0])


def test_a_label_reads_its_own_and_the_shared_experts_of_a_ple():
    bottom = PLE(
        1, num_tasks=2, experts=1, own_experts=2, num_layers=1, hidden=1, width=1, dropout=0.0
    )
    (layer,) = bottom.layers
    put(layer.shared, 100.0)
    put(layer.own[0], 1.0, 2.0)
    put(layer.own[1], 3.0, 4.0)
    put_gate(layer.gates[0], 0.0, 1.0, 2.0)
    put_gate(layer.gates[1], 0.0, 0.0, 0.0)
    assert layer.shared_gate is None
    first, second = bottom(torch.tensor([[1.0]]))
    one, two, common = share(0.0, 1.0, 2.0)
    assert first.item() == pytest.approx(one + 2 * two + 100 * common)
    assert second.item() == pytest.approx((3 + 4 + 100) / 3)


def test_the_shared_stream_between_layers_of_a_ple_reads_all_experts():
    bottom = PLE(
        1, num_tasks=2, experts=1, own_experts=1, num_layers=2, hidden=1, width=1, dropout=0.0
    )
    below, above = bottom.layers
    for layer in bottom.layers:
        for gate in layer.gates:
            put_gate(gate, 0.0, 0.0)  # half own, half shared
    put_gate(below.shared_gate, 0.0, 1.0, 2.0)
    put(below.own[0], 1.0)
    put(below.own[1], 2.0)
    put(below.shared, 6.0)
    put(above.own[0], 10.0)
    put(above.own[1], 20.0)
    put(above.shared, 100.0)
    first, second = bottom(torch.tensor([[1.0]]))
    a, b, c = share(0.0, 1.0, 2.0)
    common = a * 1 + b * 2 + c * 6
    assert first.item() == pytest.approx((10 * (1 + 6) / 2 + 100 * common) / 2)
    assert second.item() == pytest.approx((20 * (2 + 6) / 2 + 100 * common) / 2)


def test_an_adapter_starts_as_the_identity():
    hidden = torch.randn(5, 3)
    adapter = Adapter(3, 2)
    assert torch.equal(adapter(hidden), hidden)
    adapter(hidden).sum().backward()
    assert all(parameter.grad is not None for parameter in adapter.parameters())


def test_an_adapter_adds_what_its_bottleneck_makes():
    adapter = Adapter(2, 1)
    with torch.no_grad():
        adapter.down.weight.copy_(torch.tensor([[1.0, -1.0]]))
        adapter.down.bias.fill_(0.5)
        adapter.up.weight.copy_(torch.tensor([[2.0], [3.0]]))
    made = adapter(torch.tensor([[2.0, 1.0], [0.0, 1.0]]))  # 1.5, and 0 of -0.5
    assert made.tolist() == [[2 + 3.0, 1 + 4.5], [0.0, 1.0]]


@pytest.mark.parametrize(
    "heads",
    [
        {"bottom": "mmoe", "experts": 2},
        {"bottom": "ple", "experts": 2, "layers": 2},
        {"adapter": 8},
        {"biases": ["like", "rating"]},
    ],
    ids=["mmoe", "ple", "adapter", "biases"],
)
def test_the_losses_fall_where_the_item_decides_the_label(heads):
    config = tiny_model.config(
        data={"users": 6, "window": 6}, tasks={"heads": {"dropout": 0.0, **heads}}
    )
    parts = tiny_model.parts(config, tiny.dataset(tiny.cycles()))
    losses = tiny_model.train(parts, steps=40)
    assert (losses[-5:].mean(0) < 0.25 * losses[:3].mean(0)).all()
