"""Which users are asked for, and that ranking is what evaluation does; no trained run needed."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import tiny
import torch
from flm_apps.recommend import as_table, best_items, user_rows
from two_ranks.pool import Ranks

from flm_torchrec.data.dataset import TEST
from flm_torchrec.data.sampling import histories
from flm_torchrec.errors import UserError
from flm_torchrec.training.runtime import Runtime

DATASET = tiny.dataset()
IDS = DATASET.users.ids


def asked(folder: Path, text: str) -> str:
    file = folder / "ids.csv"
    file.write_text(text)
    return str(file)


def test_all_users_are_every_row_but_the_unknown_one() -> None:
    assert user_rows(DATASET, "all").tolist() == [1, 2, 3, 4, 5, 6]


def test_users_of_a_file_come_in_its_order(tmp_path: Path) -> None:
    file = asked(tmp_path, f"user\n{IDS[4]}\n{IDS[2]}\n")
    assert user_rows(DATASET, file).tolist() == [4, 2]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no column of user ids"),
        ("user\n", "no user id below its header"),
        (f"user\n{IDS[1]}\nnobody\n", "data row 2: user 'nobody'"),
    ],
)
def test_a_file_without_users_of_the_data_is_refused(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        user_rows(DATASET, asked(tmp_path, text))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        user_rows(DATASET, str(tmp_path / "none.csv"))


@pytest.mark.parametrize("missing", ["user", "item"])
def test_data_without_users_or_items_has_nothing_to_recommend(missing: str) -> None:
    dataset = replace(DATASET, **{f"{missing}s": None})
    with pytest.raises(
        UserError, match=rf"no {missing}s.*allowed: data with interactions.{missing}"
    ):
        user_rows(dataset, "all")


def recommended(runtime: Runtime, users: list[int], k: int) -> tuple[Any, Any]:
    """`best_items` where item r scores r // 2, so that neighbours tie."""
    num_items = len(DATASET.items.ids)

    def scores(user: np.ndarray, seqs: Any) -> torch.Tensor:
        return (torch.arange(num_items) // 2).float().repeat(len(user), 1)

    retrieval = SimpleNamespace(scores=scores)
    assembly = SimpleNamespace(runtime=runtime, dataset=DATASET, retrieval=lambda: retrieval)
    seqs = histories(DATASET.interactions, before_part=TEST + 1)
    return best_items(cast("Any", assembly), np.array(users), seqs, k=k, block=2)


def test_the_lower_item_is_first_among_equals_and_met_ones_are_left_out(alone: Runtime) -> None:
    items, scores = recommended(alone, [3, 5], 4)
    # User 3 met 2, 4, 6, 8; user 5 met 1, 5, 6, 7.
    assert items.tolist() == [[7, 5, 3, 1], [8, 4, 2, 3]]
    assert scores.tolist() == [[3, 2, 1, 0], [4, 2, 1, 1]]


def test_where_fewer_than_k_are_left_the_table_is_shorter(alone: Runtime) -> None:
    items, scores = recommended(alone, [1, 6], 3)
    table = as_table(DATASET, np.array([1, 6]), items, scores)  # user 1 met all but item 8
    assert table["item_id"].tolist() == [DATASET.items.ids[row] for row in (8, 8, 7, 4)]
    assert table["rank"].tolist() == [1, 1, 2, 3]


def test_two_ranks_recommend_what_one_does(alone: Runtime, ranks: Ranks) -> None:
    users = [1, 2, 3, 4, 5]
    want_items, want_scores = recommended(alone, users, 3)
    for items, scores in ranks.run(recommended, users, 3):
        assert items.tolist() == want_items.tolist()
        assert scores.tolist() == want_scores.tolist()
