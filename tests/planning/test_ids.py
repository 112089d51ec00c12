import pytest
import torch

from flm_torchrec.errors import UserError
from flm_torchrec.planning.ids import Ids, parse_ids


@pytest.mark.parametrize("text", ["uniform", "zipf:1.05", "zipf:1"])
def test_a_distribution_is_read_as_it_is_written(text):
    assert str(parse_ids(text)) == text


@pytest.mark.parametrize("text", ["zipf", "zipf:", "zipf:0", "zipf:nan", "log", "uniform:2"])
def test_another_distribution_is_refused(text):
    with pytest.raises(UserError, match=f"--ids: '{text}'; allowed: uniform"):
        parse_ids(text)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.5])
def test_ids_are_rows_of_the_table(exponent):
    drawn = Ids(exponent).draw(7, 1000)
    assert set(drawn.tolist()) <= set(range(7))


def test_the_first_row_is_met_as_often_as_its_rank_says():
    counts = torch.bincount(Ids(1.0).draw(3, 20_000), minlength=3).sort(descending=True).values
    # Rank r takes the share log((r + 1) / r) / log 4: a half, .29 and .21.
    assert counts[0].item() == pytest.approx(10_000, rel=0.05)
    assert counts[2].item() == pytest.approx(4_150, rel=0.05)
