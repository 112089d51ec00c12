import numpy as np
import tiny

from flm_torchrec.data.content import item_content, warm_and_cold


def test_content_holds_directions_of_texts_and_values_of_features_but_no_id():
    dataset = tiny.dataset()
    texts = np.zeros((1, 9, 2), dtype=np.float32)
    texts[0, 1] = 3, 4
    content = item_content(dataset, texts)
    assert content.shape == (9, 2 + 4)
    np.testing.assert_allclose(content[0], 0)
    np.testing.assert_allclose(content[1], [0.6, 0.8, 0, 0.3, 0, 0], rtol=1e-6)  # genre 1
    np.testing.assert_allclose(content[2], [0, 0, 0, 0.3, 0.3, 0], rtol=1e-6)  # genres 1 and 2


def test_what_only_the_test_met_is_cold():
    warm, cold = warm_and_cold(tiny.dataset())
    assert warm.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert cold.tolist() == [8]
