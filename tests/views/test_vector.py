import pytest
import torch

from flm_torchrec.views.vector import VectorView

VECTORS = torch.tensor([[0.0, 0.0, 0.0], [300.0, 0.0, 400.0], [0.0, 0.0, 0.0], [0.0, 500.0, 0.0]])
ITEM = torch.tensor([3, 2, 1, 1])


def view() -> VectorView:
    torch.manual_seed(0)
    return VectorView(VECTORS, dim=8)


def test_a_row_is_the_projection_of_the_items_vector():
    made = view()
    rows, present = made(ITEM)
    scale = 3**0.5 / 500  # both vectors have length 500: entries of size 1 on average
    torch.testing.assert_close(rows, made.project(scale * VECTORS[ITEM]))
    assert present.tolist() == [True, False, True, True]


def test_later_items_are_appended_in_the_unit_of_the_first():
    made = view()
    made.append(torch.stack([2 * VECTORS[1], VECTORS[0]]))
    rows, present = made(torch.tensor([1, len(VECTORS), len(VECTORS) + 1]))
    bias = made.project.bias
    torch.testing.assert_close(rows[1] - bias, 2 * (rows[0] - bias))
    assert present.tolist() == [True, True, False]


def test_rows_start_as_small_as_those_of_tables_whatever_the_unit():
    torch.manual_seed(0)
    rows, _ = VectorView(1e4 * torch.randn(500, 32), dim=16)(torch.arange(500))
    assert rows.std().item() == pytest.approx(0.02, rel=0.2)


def test_vectors_are_no_part_of_a_checkpoint_but_their_projection_is():
    assert list(view().state_dict()) == ["project.weight", "project.bias"]


def test_a_catalogue_without_any_vector_is_absent_and_finite():
    rows, present = VectorView(torch.zeros(2, 3), dim=8)(torch.tensor([0, 1]))
    assert (rows == 0).all()
    assert present.tolist() == [False, False]


def test_every_parameter_gets_a_gradient():
    made = view()
    made(ITEM)[0].sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in made.parameters())
