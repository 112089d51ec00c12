"""Which users are asked for, and that ranking is what evaluation does; no trained run needed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import tiny
import torch
from flm_apps.recommend import Choice, as_table, best_items, tell, user_rows
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


def recommended(
    runtime: Runtime,
    users: list[int],
    k: int,
    candidates: Sequence[int] = range(9),
    exclude_seen: bool = True,
    unknown: Sequence[int] = (),
) -> tuple[Any, Any]:
    """`best_items` where item r scores r // 2, so that neighbours tie, and -r for the unknown."""
    num_items, num_users = len(DATASET.items.ids), len(IDS)

    def scores(user: np.ndarray, seqs: Any) -> torch.Tensor:
        return (torch.arange(num_items) // 2).float().repeat(len(user), 1)

    retrieval = SimpleNamespace(scores=scores)
    assembly = SimpleNamespace(runtime=runtime, dataset=DATASET, retrieval=lambda: retrieval)
    seqs = histories(DATASET.interactions, before_part=TEST + 1)
    choice = Choice(
        is_candidate=np.isin(np.arange(num_items), candidates),
        exclude_seen=exclude_seen,
        is_unknown=np.isin(np.arange(num_users), unknown),
        popular=-np.arange(num_items, dtype=np.float32),
    )
    return best_items(cast("Any", assembly), np.array(users), seqs, choice, k=k, block=2)


def test_the_lower_item_is_first_among_equals_and_met_ones_are_left_out(alone: Runtime) -> None:
    items, scores = recommended(alone, [3, 5], 4)
    # User 3 met 2, 4, 6, 8; user 5 met 1, 5, 6, 7.
    assert items.tolist() == [[7, 5, 3, 1], [8, 4, 2, 3]]
    assert scores.tolist() == [[3, 2, 1, 0], [4, 2, 1, 1]]


def test_seen_items_are_ranked_where_that_is_asked_for(alone: Runtime) -> None:
    assert recommended(alone, [3], 4, exclude_seen=False)[0].tolist() == [[8, 6, 7, 4]]


def test_candidates_alone_are_ranked(alone: Runtime) -> None:
    items, scores = recommended(alone, [3], 4, candidates=[2, 3, 7])  # 2 was met
    assert items.tolist() == [[7, 3, 0, 0]]
    assert scores.tolist() == [[3, 1, -torch.inf, -torch.inf]]


def test_a_user_of_whom_nothing_is_known_gets_what_is_popular(alone: Runtime) -> None:
    items, scores = recommended(alone, [3, 5], 2, unknown=[5])
    assert items.tolist() == [[7, 5], [2, 3]]
    assert scores.tolist() == [[3, 2], [-2, -3]]


def test_where_fewer_than_k_are_left_the_table_is_shorter(alone: Runtime) -> None:
    items, scores = recommended(alone, [1, 6], 3)
    way = np.array(["history", "features"])
    # User 1 met all but item 8.
    table = as_table(DATASET, np.array([1, 6]), items, scores, way)
    assert table["item_id"].tolist() == [DATASET.items.ids[row] for row in (8, 8, 7, 4)]
    assert table["rank"].tolist() == [1, 1, 2, 3]
    assert table["made_by"].tolist() == ["history", "features", "features", "features"]


def test_a_user_who_has_seen_everything_gets_nothing(
    alone: Runtime, capfd: pytest.CaptureFixture[str]
) -> None:
    items, scores = recommended(alone, [1, 6], 3, candidates=[1, 2, 7, 8], exclude_seen=True)
    items_of_1, scores_of_1 = recommended(alone, [1], 3, candidates=[1, 2, 7])
    way = np.array(["history"])
    assert len(as_table(DATASET, np.array([1]), items_of_1, scores_of_1, way)) == 0
    assert items.tolist() == [[8, 0, 0], [8, 7, 2]]
    tell(Path("recs.csv"), 3, scores, np.array(["history", "features"]))
    told = "recs.csv: 3 items for each of 2 users, 1 by features, 1 by history; 1 with fewer left"
    assert capfd.readouterr().out.strip() == told


def test_two_ranks_recommend_what_one_does(alone: Runtime, ranks: Ranks) -> None:
    users = [1, 2, 3, 4, 5]
    want_items, want_scores = recommended(alone, users, 3)
    for items, scores in ranks.run(recommended, users, 3):
        assert items.tolist() == want_items.tolist()
        assert scores.tolist() == want_scores.tolist()
