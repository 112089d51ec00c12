import math

import numpy as np
import pytest
import tiny
import tiny_model
import torch
from sklearn.linear_model import Ridge

from flm_torchrec.data.next_items import next_items
from flm_torchrec.data.recency import EARLIER_SESSION
from flm_torchrec.views.linear import LinearPath, history_weight, recency
from flm_torchrec.views.linear_fit import fill_cold, next_item_weights

ALL = [0, 1, 2, 3]


def near(distance: int) -> float:
    return 0.7 * math.exp(-distance / 15) + 0.3 * math.exp(-distance / 3) + 0.03


def log(score: float) -> float:
    return math.log(max(score, 0) + 1e-3)


def path(*weights: torch.Tensor) -> LinearPath:
    made = LinearPath()
    made.weight = torch.stack(weights)
    return made


def test_recency_by_hand():
    expected = [near(0), near(1), near(40)]
    assert recency(torch.tensor([0.0, 1.0, 40.0])).tolist() == pytest.approx(expected)


def test_only_events_behind_count_and_those_of_earlier_sessions_half():
    session = torch.tensor([[0, 0, 1, 1]] * 4)
    weight = history_weight(torch.tensor([0, 2, 3, 4]), session)
    half = EARLIER_SESSION
    assert weight.tolist() == [
        [0, 0, 0, 0],
        pytest.approx([near(1), near(0), 0, 0]),
        pytest.approx([half * near(2), half * near(1), near(0), 0]),
        pytest.approx([half * near(3), half * near(2), near(1), near(0)]),
    ]


def test_scores_of_an_edge_and_of_the_catalogue_by_hand():
    weight = torch.arange(16.0).view(4, 4) / 16 - 0.5
    made, batch = path(weight, weight).eval(), tiny_model.batch([[1, 2]], item_row=ALL)
    after_one = [log(near(0) * w) for w in weight[1].tolist()]
    assert made(batch.users, batch.items, batch.edges).tolist() == [
        pytest.approx([log(0)] * 5),
        pytest.approx([after_one[2], *after_one]),
    ]
    last = [near(1) * a + near(0) * b for a, b in zip(*weight[1:3].tolist(), strict=True)]
    expected = [pytest.approx([log(score) for score in last], abs=1e-5)]
    assert made.catalogue(batch.users).tolist() == expected


def test_sampled_negatives_score_as_in_the_whole_catalogue():
    made = path(*torch.rand(2, 6, 6)).eval()
    every = tiny_model.batch([[1, 2, 3], [5, 1, 0]], item_row=range(6))
    some = tiny_model.batch([[1, 2, 3], [5, 1, 0]], item_row=[*range(6), 4, 2, 4], log_q=[0.0] * 3)
    whole = made(every.users, every.items, every.edges)
    drawn = made(some.users, some.items, some.edges)
    torch.testing.assert_close(drawn, whole[:, [0, 5, 3, 5]])


def test_in_training_each_user_has_the_weights_of_the_others():
    weights = torch.stack([torch.full((4, 4), float(fold)) for fold in range(3)])
    made = path(*weights)  # users 1 and 2 are in folds 1 and 0 of two
    batch = tiny_model.batch([[1, 2], [1, 2]], item_row=ALL)
    edge = torch.tensor([1, 3])
    seen = made(batch.users, batch.items, batch.edges)[edge, 1]
    assert seen.tolist() == pytest.approx([log(2 * near(0)), log(1 * near(0))])
    assert (made.eval()(batch.users, batch.items, batch.edges)[edge] == log(0)).all()


def test_the_scale_gets_a_gradient():
    made, batch = path(*torch.rand(2, 4, 4)), tiny_model.batch([[1, 2]], item_row=ALL)
    made(batch.users, batch.items, batch.edges).sum().backward()
    assert made.scale.grad is not None
    assert made.scale.grad.abs() > 0


def brute_force(
    moments, num_items: int, window: int, l2: float, reverse: float, users
) -> np.ndarray:
    gram, cross = np.eye(num_items) * l2, np.zeros((num_items, num_items))
    for row in np.flatnonzero(np.isin(moments.user, users)):
        begin, end = moments.offsets[moments.user[row] : moments.user[row] + 2]
        before = range(begin, moments.before[row])
        after = range(moments.after[row], end)
        for share, places in ((1.0, before[::-1]), (reverse, after)):
            history = np.zeros(num_items)
            for distance, place in enumerate(places[:window]):
                is_earlier = moments.event_session[place] != moments.event_session[places[0]]
                weight = near(distance) * (EARLIER_SESSION if is_earlier else 1)
                history[moments.event_item[place]] += weight
            gram += share * np.outer(history, history)
            cross[:, moments.item[row]] += share * history
    return np.linalg.solve(gram, cross)


@pytest.mark.parametrize("reverse", [0.0, 0.5])
def test_weights_are_the_ridge_regression_of_the_next_item(reverse):
    dataset = tiny.dataset(tiny.EVENTS)
    dataset.interactions.time[:] *= 1200  # seconds: a pause of an hour is not one
    dataset.interactions.time[3:] += 10_000
    moments = next_items(dataset)
    fit = next_item_weights(moments, num_items=9, window=3, l2=0.7, reverse=reverse, folds=2)
    for weight, users in zip(fit, ([1, 2, 3, 4, 5, 6], [1, 3, 5], [2, 4, 6]), strict=True):
        expected = brute_force(moments, 9, 3, 0.7, reverse, users)
        np.testing.assert_allclose(weight.numpy(), expected, atol=1e-5)


def test_nothing_of_the_held_out_events_is_in_the_weights():
    moments = next_items(tiny.dataset())
    assert 8 not in moments.item
    assert 8 not in moments.event_item
    assert len(moments.item) == 18
    assert moments.event_item[moments.before[:5]].tolist() == [1, 2, 3, 4, 5]


def test_scores_that_are_not_trained_lean_more_on_the_path():
    weight = torch.arange(16.0).view(4, 4) / 16 - 0.5
    plain, boosted = path(weight, weight), path(weight, weight)
    boosted.boost = 0.5
    batch = tiny_model.batch([[1, 2]], item_row=ALL)
    seen = batch.users, batch.items, batch.edges
    assert torch.equal(boosted(*seen), plain(*seen))
    torch.testing.assert_close(boosted.eval()(*seen), 1.5 * plain.eval()(*seen))
    torch.testing.assert_close(boosted.catalogue(batch.users), 1.5 * plain.catalogue(batch.users))


def test_the_path_ranks_what_follows_before_anything_is_learned():
    config = tiny_model.config(
        data={"users": 6, "window": 6}, views={"linear": {"l2": 1.0}}, tasks={"rank": {}}
    )
    on = tiny_model.parts(config, tiny.dataset(tiny.cycles()))
    off = tiny_model.parts(tiny_model.config(data={"users": 6, "window": 6}), on.dataset)
    first = [tiny_model.train(parts, steps=1)[0, 0] for parts in (on, off)]
    assert first[0] < 0.7 * first[1]


def test_a_cold_item_has_the_weights_that_its_content_foretells():
    content = torch.tensor([[0.0, 0], [1, 0], [2, 0], [0, 1], [3, 0], [0, 2]])
    warm, cold = torch.tensor([1, 2, 3]), torch.tensor([4, 5])
    weight = torch.zeros(2, 6, 6)
    weight[:, 1:4, 1:4] = torch.randn(2, 3, 3)
    before = weight.clone()
    met = torch.tensor([1.0, 20, 300])
    fill_cold(weight, warm, cold, content, met, l2=0.5)
    torch.testing.assert_close(weight[:, :4, :4], before[:, :4, :4])
    assert (weight[:, 0] == 0).all()
    popularity = (met + 5).log().double()[:, None]
    model = Ridge(alpha=0.5).fit(content[warm], popularity)
    length = torch.from_numpy(model.predict(content[cold])).reshape(1, -1).mul(0.35).exp()
    for fit in weight:
        columns = fit[warm][:, warm].T / popularity.mul(0.35).exp()
        model = Ridge(alpha=0.5).fit(content[warm], columns)
        columns = torch.from_numpy(model.predict(content[cold])).T * length
        torch.testing.assert_close(fit[warm][:, cold], columns.float(), atol=1e-5, rtol=0)
        model = Ridge(alpha=0.5).fit(content[warm], fit[warm])
        rows = torch.from_numpy(model.predict(content[cold]))
        torch.testing.assert_close(fit[cold], rows.float(), atol=1e-5, rtol=0)


def test_without_cold_or_without_warm_items_nothing_changes():
    weight, every, none = (
        torch.rand(1, 3, 3),
        torch.tensor([1, 2]),
        torch.zeros(0, dtype=torch.int64),
    )
    before = weight.clone()
    fill_cold(weight, every, none, torch.rand(3, 2), torch.ones(2))
    fill_cold(weight, none, every, torch.rand(3, 2), torch.ones(0))
    assert (weight == before).all()
