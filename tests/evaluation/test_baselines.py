"""Baselines against their definitions, written out another way."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from flm_torchrec.data.dataset import TEST, TRAIN, VALIDATION
from flm_torchrec.data.prepare import prepare
from flm_torchrec.data.sources.movielens import fetch_movielens_100k
from flm_torchrec.evaluation.baselines import (
    BiasModel,
    content_knn,
    ease,
    item_knn,
    popularity,
)
from flm_torchrec.evaluation.metrics import auc, rmse
from flm_torchrec.evaluation.ranking import (
    ItemLists,
    evaluate,
    held_out_task,
    items_of_users,
)

NUM_USERS, NUM_ITEMS = 30, 12
EVERYBODY = np.arange(NUM_USERS)


def random_lists(seed):
    """Row 0 is empty, as is the unknown user; item 0 and item 11 are never met."""
    rng = np.random.default_rng(seed)
    rows = [[], *(rng.choice(np.arange(1, 11), rng.integers(1, 7), False) for _ in range(29))]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return ItemLists(values=np.concatenate(rows).astype(np.int64), offsets=offsets.astype(np.int64))


TRAINED, HISTORY = random_lists(0), random_lists(1)
VECTORS = torch.randn(NUM_ITEMS, 5, generator=torch.Generator().manual_seed(0))


def matrix(lists):
    return lists.dense(NUM_ITEMS).double().numpy()


def all_baselines():
    return {
        "popularity": popularity(TRAINED, num_items=NUM_ITEMS),
        "item_knn": item_knn(TRAINED, HISTORY, num_items=NUM_ITEMS),
        "ease": ease(TRAINED, HISTORY, num_items=NUM_ITEMS),
        "content_knn": content_knn(VECTORS, HISTORY),
    }


def test_popularity_counts_users():
    scores = popularity(TRAINED, num_items=NUM_ITEMS)(np.array([3, 0]))
    assert scores.tolist() == [np.bincount(TRAINED.values, minlength=NUM_ITEMS).tolist()] * 2


def test_item_knn_sums_cosines_over_the_history():
    x = matrix(TRAINED)
    cosine = np.zeros((NUM_ITEMS, NUM_ITEMS))
    for a in range(NUM_ITEMS):
        for b in range(NUM_ITEMS):
            if a != b and x[:, a].any() and x[:, b].any():
                norms = np.linalg.norm(x[:, a]) * np.linalg.norm(x[:, b])
                cosine[a, b] = x[:, a] @ x[:, b] / norms
    scores = item_knn(TRAINED, HISTORY, num_items=NUM_ITEMS)(EVERYBODY)
    np.testing.assert_allclose(scores, matrix(HISTORY) @ cosine, atol=1e-5)


def test_ease_is_the_ridge_of_each_item_on_all_others():
    x, l2 = matrix(TRAINED), 3.0
    weights = np.zeros((NUM_ITEMS, NUM_ITEMS))
    for item in range(NUM_ITEMS):
        others = np.arange(NUM_ITEMS) != item
        ridge = Ridge(alpha=l2, fit_intercept=False).fit(x[:, others], x[:, item])
        weights[others, item] = ridge.coef_
    scores = ease(TRAINED, HISTORY, num_items=NUM_ITEMS, l2=l2)(EVERYBODY)
    np.testing.assert_allclose(scores, matrix(HISTORY) @ weights, atol=1e-5)


def test_content_knn_sums_cosines_of_vectors_and_bears_a_zero_vector():
    vectors = VECTORS.clone()
    vectors[0] = 0
    cosine = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=2).numpy()
    scores = content_knn(vectors, HISTORY)(EVERYBODY)
    np.testing.assert_allclose(scores, matrix(HISTORY) @ cosine, atol=1e-5)


def test_a_repeated_event_counts_once():
    once = ItemLists(values=np.array([1, 2]), offsets=np.array([0, 2]))
    twice = ItemLists(values=np.array([1, 2, 2, 1]), offsets=np.array([0, 4]))
    row = np.array([0])
    for fit in (item_knn, ease):
        expected = fit(once, once, num_items=4)(row)
        assert torch.equal(fit(twice, twice, num_items=4)(row), expected)
    assert popularity(twice, num_items=4)(row).tolist() == [[0, 1, 1, 0]]


def test_users_are_scored_in_the_order_asked_for_and_alike_each_time():
    some = np.array([7, 2, 7])
    again = all_baselines()
    for name, score in all_baselines().items():
        scores = score(some)
        assert scores.shape == (3, NUM_ITEMS)
        assert torch.equal(scores, again[name](some))
        torch.testing.assert_close(scores, score(EVERYBODY)[some])


def test_a_user_without_history_has_equal_scores():
    scores = all_baselines()
    for name in ("item_knn", "ease", "content_knn"):
        assert scores[name](np.array([0])).unique().tolist() == [0]


def test_more_users_than_one_block_holds_are_all_counted():
    # 3000 users met item 1, the first half of them item 2 as well.
    rows = [[1, 2] if row < 1500 else [1] for row in range(3000)]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    lists = ItemLists(values=np.concatenate(rows), offsets=offsets)
    assert popularity(lists, num_items=3)(np.array([0])).tolist() == [[0, 3000, 1500]]
    scores = item_knn(lists, lists, num_items=3)(np.array([2999]))
    assert scores[0].tolist() == pytest.approx([0, 0, 0.5**0.5])


def test_the_bias_model_is_the_ridge_solution():
    rng = np.random.default_rng(0)
    user, item = rng.integers(1, NUM_USERS, 300), rng.integers(1, NUM_ITEMS, 300)
    value = rng.integers(1, 6, 300).astype(np.float32)
    one_hot = np.zeros((300, NUM_USERS + NUM_ITEMS))
    one_hot[np.arange(300), user] = 1
    one_hot[np.arange(300), NUM_USERS + item] = 1
    ridge = Ridge(alpha=1.5, fit_intercept=False).fit(one_hot, value - value.mean())
    bias = BiasModel.fit(user, item, value, num_users=NUM_USERS, num_items=NUM_ITEMS, l2=1.5)
    np.testing.assert_allclose(np.concatenate([bias.user, bias.item]), ridge.coef_, atol=1e-3)
    expected = value.mean() + ridge.predict(one_hot)
    np.testing.assert_allclose(bias.predict(user, item), expected, atol=1e-3)


def test_the_bias_model_leaves_out_missing_ratings_and_knows_the_mean_of_strangers():
    user, item = np.array([1, 1, 2]), np.array([1, 2, 1])
    value = np.array([5, np.nan, 3], dtype=np.float32)
    bias = BiasModel.fit(user, item, value, num_users=4, num_items=4)
    assert bias.predict(np.array([3]), np.array([2])).tolist() == [4.0]
    nothing = BiasModel.fit(user, item, np.full(3, np.nan), num_users=4, num_items=4)
    assert nothing.predict(user, item).tolist() == [0, 0, 0]


@pytest.mark.slow
def test_the_baselines_reach_their_known_figures_on_movielens(tmp_path):
    fetch_movielens_100k(tmp_path)
    dataset = prepare(tmp_path)
    events = dataset.interactions
    num_items, num_users = len(dataset.items.ids), len(dataset.users.ids)

    def met_before(part):
        is_met = events.part < part
        return items_of_users(events.user[is_met], events.item[is_met], num_users=num_users)

    train = met_before(VALIDATION)
    for part, expected in (
        (VALIDATION, (0.0345, 0.0712, 0.0878)),
        (TEST, (0.0449, 0.0558, 0.0711)),
    ):
        history = met_before(part)
        task = held_out_task(
            events.user, events.item, events.part, part_to_rank=part, num_users=num_users
        )
        scores = (
            popularity(train, num_items=num_items),
            item_knn(train, history, num_items=num_items),
            ease(train, history, num_items=num_items),
        )
        found = [evaluate(score, task, num_items=num_items).mean["ndcg@10"] for score in scores]
        assert found == pytest.approx(expected, abs=1e-4)
    is_train, is_test = events.part == TRAIN, events.part == TEST
    rating = events.labels["rating"]
    bias = BiasModel.fit(
        events.user[is_train],
        events.item[is_train],
        rating[is_train],
        num_users=num_users,
        num_items=num_items,
    )
    prediction = bias.predict(events.user[is_test], events.item[is_test])
    assert rmse(prediction, torch.from_numpy(rating[is_test])) == pytest.approx(1.029, abs=1e-3)
    like = torch.from_numpy(events.labels["like"][is_test])
    assert auc(prediction, like) == pytest.approx(0.785, abs=1e-3)
