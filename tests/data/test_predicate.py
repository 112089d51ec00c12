import pytest

from flm_torchrec.data.predicate import Comparison, parse_predicate


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rating >= 4", [("rating", ">=", 4.0)]),
        ("rating>4.5", [("rating", ">", 4.5)]),
        ("event == buy", [("event", "==", "buy")]),
        ("event != 'add to cart'", [("event", "!=", "add to cart")]),
        ('event == ""', [("event", "==", "")]),
        ("event == '4'", [("event", "==", "4")]),
        ("my column < -1e-3", [("my column", "<", -0.001)]),
        ("a == 1 and b <= 2", [("a", "==", 1.0), ("b", "<=", 2.0)]),
    ],
)
def test_a_predicate_is_comparisons_that_must_all_hold(text, expected):
    assert parse_predicate(text) == tuple(Comparison(*parts) for parts in expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rating", "'rating' is not of the form COLUMN"),
        ("rating => 4", "'rating => 4' is not of the form COLUMN"),
        ("rating >=", "'rating >=' is not of the form COLUMN"),
        (">= 4", "'>= 4' is not of the form COLUMN"),
        ("a == 1 and", "is not of the form COLUMN"),
        ("rating >= high", "'high' is not a number; allowed with texts: == and !="),
    ],
)
def test_what_is_no_predicate_is_told(text, message):
    with pytest.raises(ValueError, match="is not") as caught:
        parse_predicate(text)
    assert message in str(caught.value)
