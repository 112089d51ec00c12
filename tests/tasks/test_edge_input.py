from dataclasses import replace

import pytest
import torch
from tiny_edges import INPUTS, NO_LABELS, SEEN, batch, views

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.model import Views
from flm_torchrec.tasks.cross import FM, DCNv2
from flm_torchrec.tasks.edge_input import EdgeInput, Inputs


def with_context_and_numbers() -> tuple[Views, FLMBatch]:
    hand = batch(NO_LABELS, NO_LABELS)
    hand = replace(
        hand,
        edges=replace(hand.edges, numbers=torch.tensor([[0.1], [0.2]])),
        users=replace(hand.users, numbers=torch.tensor([[0.3]])),
        items=replace(hand.items, numbers=torch.tensor([[0.0, 0.0], [0.4, 0.5], [0.6, 0.7]])),
    )
    return replace(views(), context=torch.tensor([[[3.0, 4.0]], [[5.0, 6.0]]])), hand


CONTEXT = torch.tensor([[3.0, 4.0], [5.0, 6.0]])
NUMBERS = torch.tensor([[0.1, 0.3, 0.4, 0.5], [0.2, 0.3, 0.6, 0.7]])
EVERYTHING = Inputs(dim=2, has_user=True, has_item=True, num_features=4, num_numbers=4)


def test_state_item_their_product_and_their_features_are_seen():
    seen, features = EdgeInput(INPUTS)(views(), batch(NO_LABELS, NO_LABELS))
    torch.testing.assert_close(seen, SEEN)
    torch.testing.assert_close(torch.cat(features, dim=1).flatten(1), SEEN[:, 6:])


def test_the_context_and_all_numbers_are_seen():
    edge_input = EdgeInput(EVERYTHING)
    seen, features = edge_input(*with_context_and_numbers())
    torch.testing.assert_close(seen, torch.cat([SEEN, CONTEXT, NUMBERS], dim=1))
    assert edge_input.width == seen.shape[1]
    flat = torch.cat(features, dim=1).flatten(1)
    torch.testing.assert_close(flat, torch.cat([SEEN[:, 6:], CONTEXT], dim=1))
    assert flat.shape[1] == EVERYTHING.features_width


def test_a_cross_layer_takes_the_place_of_the_features():
    """It sees them, the state, the item and a vector of the numbers and a constant."""
    cross = FM(num_vectors=EVERYTHING.num_vectors)
    edge_input = EdgeInput(EVERYTHING, cross=cross)
    seen, _ = edge_input(*with_context_and_numbers())
    constant = edge_input.numbers(torch.cat([torch.ones(2, 1), NUMBERS], dim=1))
    vectors = torch.cat([SEEN[:, 6:], CONTEXT, SEEN[:, :4], constant], dim=1).unflatten(1, (-1, 2))
    torch.testing.assert_close(seen, torch.cat([SEEN[:, :6], cross(vectors), NUMBERS], dim=1))
    assert edge_input.width == seen.shape[1]


@pytest.mark.parametrize("cross", [None, FM(num_vectors=2), DCNv2(num_vectors=2, dim=2)])
def test_context_alone_is_enough(cross):
    inputs = Inputs(dim=2, has_user=False, has_item=False, num_features=1, num_numbers=3)
    edge_input = EdgeInput(inputs, cross=cross)
    hand = batch(NO_LABELS, NO_LABELS)
    hand = replace(
        hand, users=None, items=None, edges=replace(hand.edges, numbers=torch.rand(2, 3))
    )
    seen, _ = edge_input(Views(context=torch.rand(2, 1, 2)), hand)
    assert seen.shape == (2, edge_input.width)


def test_items_without_users_have_no_product():
    inputs = Inputs(dim=2, has_user=False, has_item=True, num_features=2, num_numbers=0)
    hand = replace(batch(NO_LABELS, NO_LABELS), users=None)
    seen, _ = EdgeInput(inputs)(replace(views(), users=None), hand)
    torch.testing.assert_close(seen, SEEN[:, [2, 3, 8, 9, 10, 11]])
