import numpy as np
import pytest
import tiny
import tiny_logs
import tiny_model
import torch
from torch import nn

from flm_torchrec.data.sampling import last_windows, sequences

DATASET = tiny.dataset()
EVERYONE = np.array([1, 2, 3, 4, 5, 6])
WINDOW = 4


def parts(encoder_folder=None, *, negatives="all", fusion="gated", world_size=1):
    text = encoder_folder and {"encoder": str(encoder_folder)}
    config = tiny_model.config(
        data={"window": WINDOW, "negatives": negatives}, text=text, views={"fusion": fusion}
    )
    made = tiny_model.parts(config, DATASET)
    made.model.eval()
    return made


def batch(made):
    seqs = sequences(DATASET.interactions, before_part=1)
    return made.collator.batch(last_windows(seqs, EVERYONE, WINDOW), seqs, rng_key=(0,))


def changed(users, **fields):
    names = users.__dataclass_fields__
    return type(users)(**({name: getattr(users, name) for name in names} | fields))


@pytest.mark.parametrize("fusion", ["mean", "weighted", "gated"])
def test_items_have_a_row_and_their_views_in_the_order_of_their_names(encoder_folder, fusion):
    made = parts(encoder_folder, fusion=fusion)
    flm, data = made.model.flm, batch(made)
    items = flm(data).items
    assert flm.view_names == ("features", "title")
    features, per_feature = flm.item_view(data.items.features, data.items.numbers)
    torch.testing.assert_close(items.views[0], features)
    torch.testing.assert_close(
        items.views[1], flm.text_view.projections[0](flm.text_view.vectors[0, data.items.row])
    )
    torch.testing.assert_close(items.features, per_feature)
    torch.testing.assert_close(
        items.row,
        torch.where(items.present[1, :, None], items.views.mean(0), items.views[0]),
    )  # a new fusion weighs what is present equally


def test_an_item_without_text_is_its_features_alone(encoder_folder):
    made = parts(encoder_folder)
    items = made.model.flm(batch(made)).items
    assert items.present[0].tolist() == [True] * 9
    assert items.present[1].tolist() == [row not in (0, 7) for row in range(9)]
    assert items.weights[7].tolist() == [1.0, 0.0]
    torch.testing.assert_close(items.row[7], items.views[0, 7])


def test_a_model_without_text_has_one_view():
    made = parts()
    views = made.model.flm(batch(made))
    assert made.model.flm.view_names == ("features",)
    assert views.items.views.shape == (1, 9, 8)
    torch.testing.assert_close(views.items.row, views.items.views[0])
    assert views.users.states.shape == (6, WINDOW + 1, 8)
    assert views.users.features.shape == (6, 2, 8)


@pytest.mark.parametrize("step", range(WINDOW))
def test_a_state_does_not_depend_on_the_events_from_its_step_on(step):
    made = parts()
    flm, data = made.model.flm, batch(made)
    items, _ = flm.items(data.items, data.text, data.masked_text)
    history, told = data.users.history.clone(), data.users.event_labels.clone()
    history[:, step:] = (history[:, step:] + 3) % 9
    told[:, step:] += 1
    before = flm.users(data.users, items.row).states
    other = changed(data.users, history=history, event_labels=told)
    after = flm.users(other, items.row).states
    torch.testing.assert_close(after[:, : step + 1], before[:, : step + 1])
    assert ((after[:, step + 1 :] - before[:, step + 1 :]).abs().amax((0, 2)) > 1e-5).all()


def test_state_0_is_the_cold_user():
    made = parts()
    flm, data = made.model.flm, batch(made)
    row, _ = flm.user_view(data.users.features)
    nothing = [torch.zeros(6, WINDOW, width) for width in (8, 2)]
    nobody = flm.history(row, *nothing, torch.zeros(6, WINDOW), torch.zeros(6))
    torch.testing.assert_close(flm(data).users.states[:, 0], nobody[:, 0])


def test_states_are_the_same_whether_items_are_sampled_or_all_in_the_batch(encoder_folder):
    everything, sampled = parts(encoder_folder), parts(encoder_folder, negatives=3)
    sampled.model.load_state_dict(everything.model.state_dict())
    left = everything.model.flm(batch(everything))
    data = batch(sampled)
    right = sampled.model.flm(data)
    torch.testing.assert_close(left.users.states, right.users.states)
    torch.testing.assert_close(left.items.row[data.items.row], right.items.row)


def test_an_item_that_nobody_trained_on_is_read_through_its_features():
    made = parts()
    items = made.model.flm(batch(made)).items
    tables = made.model.flm.item_view.ebc.embedding_bags
    unknown = tables["items_item_id"].weight[0]
    torch.testing.assert_close(items.row[8], unknown + tables["items_genres"].weight[1])
    torch.testing.assert_close(items.row[0], unknown)


def test_a_hidden_attribute_shows_in_no_view(encoder_folder):
    dataset = tiny_logs.with_views(DATASET)
    config = tiny_model.config(
        text={"encoder": str(encoder_folder)}, tasks={"cloze": {"attribute": "genres", "items": 6}}
    )
    made = tiny_model.parts(config, dataset)
    flm, data = made.model.flm, made.collator.step(made.sampler, 0)
    nn.init.normal_(flm.fusion.gate.weight)
    before = flm(data).items
    assert before.hidden.shape == (6, 8)
    assert before.row.shape == (len(data.items.row), 8)
    # What tells of the attribute changes, for the items that are there as they are.
    flm.text_view.vectors.normal_()
    flm.vector_views[0].vectors[1:].normal_()
    nn.init.normal_(flm.item_view.ebc.embedding_bags["items_genres"].weight)
    after = flm(data).items
    assert not torch.allclose(after.row[1:], before.row[1:])
    torch.testing.assert_close(after.hidden, before.hidden)
    # What else is known of them counts.
    flm.text_view.hidden_vectors.normal_()
    assert not torch.allclose(flm(data).items.hidden, before.hidden)
    text = flm(data).items.hidden
    nn.init.normal_(flm.item_view.ebc.embedding_bags["items_item_id"].weight)
    assert not torch.allclose(flm(data).items.hidden, text)
