import numpy as np
import pytest
import tiny
import tiny_logs

from flm_torchrec.data.schema import InteractionSchema
from flm_torchrec.data.told import given_label, one_class_labels


def schema(**labels: object) -> InteractionSchema:
    data = tiny_logs.with_labels(tiny.dataset(), labels)
    assert data.schema.interactions is not None
    return data.schema.interactions


@pytest.mark.parametrize(
    ("click", "where", "expected"),
    [
        ("binary", "click == 1", "click"),
        ("rating >= 4", "rating >= 4", "click"),
        ("a == b and rating >= 4", "rating >= 4 and a == b", "click"),
        ("binary", None, None),
        ("binary", "click > 0", None),
        ("binary", "click == 0", None),
        ("rating >= 4", "click == 1", None),
        ("always", "click == 1", None),
        ({"kind": "ordinal"}, "click == 1", None),
    ],
)
def test_a_label_is_given_the_binary_label_that_says_the_same(click, where, expected):
    found = schema(click=click, bought={"kind": "binary", "where": where})
    assert given_label(found, "bought") == expected
    assert given_label(found, "click") is None


def test_labels_of_one_class_are_told_with_what_they_are():
    declared = {
        "all": "binary",
        "both": "binary",
        "none": "binary",
        "shown": "always",
        "rating": "ordinal",
    }
    data = tiny_logs.with_labels(tiny.dataset(), declared, **dict.fromkeys(declared, 1.0))
    labels = data.interactions.labels
    labels["both"][1] = 0
    labels["none"][:] = np.nan
    labels["all"][2] = np.nan
    assert one_class_labels(data, np.arange(4)) == {
        "all": "is 1 in all 3 rows that have it",
        "none": "is missing in all 4 rows",
    }
    assert set(one_class_labels(data, np.arange(1))) == {"all", "both", "none"}
