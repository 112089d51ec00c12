from dataclasses import replace

import numpy as np
import pytest
import tiny
from scipy.spatial.distance import cdist

from flm_torchrec.data import content as flm_content
from flm_torchrec.data.content import item_content, warm_and_cold


def test_items_are_alike_as_each_view_has_it_and_none_by_their_id():
    dataset = tiny.dataset()
    assert dataset.items is not None
    items = replace(dataset.items, numbers=np.zeros((9, 0), dtype=np.float32))
    texts = np.zeros((1, 9, 2), dtype=np.float32)
    texts[0, 1:3] = (3, 4), (4, 3)
    warm = np.arange(1, 8)
    content = item_content(replace(dataset, items=items), texts, warm)
    kernel = content @ content.T
    genres = np.zeros((9, 4))
    genres[items.columns["genres"].owners(), items.columns["genres"].values] = 1.0
    genres[:, 0] = 0  # unknown
    genres /= np.maximum(np.linalg.norm(genres, axis=1, keepdims=True), 1e-12)
    texts[0] /= 5
    wanted = np.zeros((9, 9))
    for rows, reach in ((texts[0], 1.0), (genres, 2.0)):
        spread = 2 * rows[warm].var(axis=0).sum()
        wanted += np.exp(-(cdist(rows, rows) ** 2) / (reach * spread)) / 2
    # Exact among landmarks, but for what keeps equal ones apart.
    np.testing.assert_allclose(kernel[1:8, 1:8], wanted[1:8, 1:8], atol=1e-3)


def test_of_many_items_some_are_landmarks_and_the_others_are_nearly_as_alike(
    monkeypatch: pytest.MonkeyPatch,
):
    dataset = tiny.dataset()
    assert dataset.items is not None
    count, rng = 300, np.random.default_rng(0)
    texts = rng.normal(size=(1, count, 2)).astype(np.float32)
    items = replace(
        dataset.items, ids=np.arange(count), numbers=np.zeros((count, 0), np.float32), columns={}
    )
    whole = item_content(replace(dataset, items=items), texts, np.arange(1, count))
    monkeypatch.setattr(flm_content, "_MOST_LANDMARKS", 60)
    some = item_content(replace(dataset, items=items), texts, np.arange(1, count))
    assert whole.shape == (count, count - 1)
    assert some.shape == (count, 60)
    np.testing.assert_allclose(some @ some.T, whole @ whole.T, atol=0.02)


@pytest.mark.parametrize("noise", [1e-2, 1e-4, 1e-7, 0.0])
def test_vectors_that_lie_close_together_are_still_told_apart(noise):
    dataset = tiny.dataset()
    assert dataset.items is not None
    count, rng = 400, np.random.default_rng(0)
    texts = (1 + noise * rng.normal(size=(1, count, 2))).astype(np.float32)
    items = replace(
        dataset.items, ids=np.arange(count), numbers=np.zeros((count, 0), np.float32), columns={}
    )
    content = item_content(replace(dataset, items=items), texts, np.arange(1, count))
    assert content.isfinite().all()
    if noise >= 1e-4:
        own = (content * content).sum(1)
        assert own[1:].tolist() == pytest.approx([1.0] * (count - 1), abs=1e-3)


def test_of_items_all_alike_nothing_is_known():
    dataset = tiny.dataset()
    assert dataset.items is not None
    same = replace(dataset.items, numbers=np.ones((9, 1), np.float32), columns={})
    texts = np.ones((1, 9, 2), dtype=np.float32)
    assert item_content(replace(dataset, items=same), texts, np.arange(1, 8)).shape == (9, 0)


def test_what_only_the_test_met_is_cold():
    warm, cold = warm_and_cold(tiny.dataset())
    assert warm.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert cold.tolist() == [8]
