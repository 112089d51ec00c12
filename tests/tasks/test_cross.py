import pytest
import torch
from torch import nn

from flm_torchrec.tasks.cross import FM, DCNv2

VECTORS = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]])


def test_the_products_of_all_pairs_by_hand():
    cross = FM(num_vectors=3)
    assert cross(VECTORS).tolist() == [[11.0, 17.0, 39.0], [0.0, 1.0, 1.0]]
    assert cross.width == 3


def test_products_are_those_of_a_plain_double_loop_and_so_are_their_gradients():
    vectors = torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pairs = [(i, j) for i in range(7) for j in range(i + 1, 7)]
    plain = torch.stack([(vectors[:, i] * vectors[:, j]).sum(1) for i, j in pairs], dim=1)
    made = FM(num_vectors=7)(vectors)
    torch.testing.assert_close(made, plain)
    weight = torch.arange(21.0)
    (gradient,) = torch.autograd.grad((made * weight).sum(), vectors)
    (wanted,) = torch.autograd.grad((plain * weight).sum(), vectors)
    torch.testing.assert_close(gradient, wanted)


def test_one_low_rank_layer_by_hand():
    cross = DCNv2(num_vectors=2, dim=1, layers=1, rank=1)
    with torch.no_grad():
        cross.layers.V_kernels[0].copy_(torch.tensor([[1.0, 1.0]]))
        cross.layers.W_kernels[0].copy_(torch.tensor([[2.0], [3.0]]))
        cross.layers.bias[0].copy_(torch.tensor([0.5, 0.0]))
    # x = (1, 2): x * (W V x + b) + x = (1 * 6.5 + 1, 2 * 9 + 2)
    assert cross(torch.tensor([[[1.0], [2.0]]])).tolist() == [[7.5, 20.0]]
    assert cross.width == 2


@pytest.mark.parametrize("cross", [FM(num_vectors=3), DCNv2(num_vectors=3, dim=2)])
def test_vectors_and_parameters_get_a_gradient(cross):
    vectors = VECTORS.clone().requires_grad_()
    made = cross(vectors)
    assert made.shape == (2, cross.width)
    made.square().sum().backward()
    assert (vectors.grad.abs().sum(2) > 0).all()
    assert all(parameter.grad.abs().sum() > 0 for parameter in cross.parameters())


@pytest.mark.parametrize("kind", ["fm", "dcn"])
def test_a_planted_product_of_two_features_is_found_where_a_sum_finds_nothing(kind):
    """The label is whether the signs of two features agree."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(512, 3, 2, generator=generator)
    label = ((vectors[:, 0] * vectors[:, 2]).sum(1) > 0).float()
    torch.manual_seed(0)
    cross = FM(num_vectors=3) if kind == "fm" else DCNv2(num_vectors=3, dim=2, rank=4)

    def accuracy(inputs: nn.Module, width: int) -> float:
        score = nn.Linear(width, 1)
        model = nn.Sequential(inputs, score)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(100):
            loss = nn.functional.binary_cross_entropy_with_logits(model(vectors)[:, 0], label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(((model(vectors)[:, 0] > 0) == label.bool()).float().mean())

    assert accuracy(nn.Flatten(), 6) < 0.65
    assert accuracy(cross, cross.width) > 0.9
