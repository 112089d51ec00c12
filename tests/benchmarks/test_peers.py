"""The peers' side of the quality benchmark, as far as it runs without the peers' libraries."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flm_benchmarks.peers import measured, splits
from flm_benchmarks.peers.split_log import (
    TEST,
    TRAIN,
    VALIDATION,
    Search,
    SplitLog,
    cold_items,
    cold_users,
    earlier,
    next_items,
)
from flm_benchmarks.peers.top_items import DEPTH, ndcg, popularity, top_items
from numpy.typing import NDArray
from small_data import write_folder
from tiny_split import tiny_split

from flm_torchrec.config import TextConfig
from flm_torchrec.data.prepare import prepare
from flm_torchrec.errors import UserError


@pytest.fixture
def log() -> SplitLog:
    """User 1 met 1, 2, then 3 (validation), 4 (test); user 2 met 2, then 1, 5."""
    parts = [TRAIN, TRAIN, VALIDATION, TEST, TRAIN, VALIDATION, TEST]
    return tiny_split([1, 1, 1, 1, 2, 2, 2], [1, 2, 3, 4, 2, 1, 5], parts)


@pytest.fixture(scope="module")
def split_files(
    tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path
) -> dict[str, tuple[Path, SplitLog]]:
    root = tmp_path_factory.mktemp("splits")
    encoder = TextConfig(encoder=str(encoder_folder), max_tokens=8)
    files = splits.write_splits(
        write_folder(root / "data"), root / "out", [*splits.SPLITS], encoder
    )
    return {name: (file, SplitLog.read(file)) for name, file in files.items()}


def test_a_split_file_holds_the_parts_of_its_data_folder(
    split_files: dict[str, tuple[Path, SplitLog]],
) -> None:
    for name, (file, log) in split_files.items():
        dataset = prepare(file.parent.parent)
        assert dataset.schema.split_rule() == splits.SPLITS[name]
        for column in ("user", "item", "time", "part"):
            assert np.array_equal(getattr(log, column), getattr(dataset.interactions, column))
        assert np.array_equal(log.order, dataset.interactions.source_row)
        for label in ("like", "rating"):
            found = dataset.interactions.labels[label]
            assert np.array_equal(getattr(log, label), found, equal_nan=True)


def test_cold_items_and_cold_users_are_in_no_other_part(
    split_files: dict[str, tuple[Path, SplitLog]],
) -> None:
    for name, column in (("cold_items", "item"), ("cold_users", "user")):
        log = split_files[name][1]
        rows = getattr(log, column)
        for part in (VALIDATION, TEST):
            assert not set(rows[log.part == part]) & set(rows[log.part != part])


def test_a_split_file_tells_of_features_texts_and_titles(
    split_files: dict[str, tuple[Path, SplitLog]],
) -> None:
    log = split_files["last"][1]
    place = [title.split(" ")[0] for title in log.title].index("Two")
    # Of the features that training knows: a year's bucket and the genre b.
    assert log.item_features[[place]].sum() == 2
    assert log.item_features[[0]].sum() == 0
    assert log.item_text.shape[0] == log.num_items
    assert log.item_text[place].any()
    assert not log.item_text[0].any()


def test_splits_that_are_there_are_left_alone(
    split_files: dict[str, tuple[Path, SplitLog]],
) -> None:
    file = split_files["last"][0]
    before = file.stat().st_mtime_ns
    root = file.parents[3]
    assert splits.write_splits(root / "data", root / "out", ["last"])["last"] == file
    assert file.stat().st_mtime_ns == before


def test_splits_need_ratings(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", {"schema.yaml": (", rating: {kind: ordinal}}", "}")})
    with pytest.raises(UserError, match="needs users, items and the labels 'like' and 'rating'"):
        splits.split_log(prepare(folder), np.zeros((7, 0), np.float32))


def test_each_search_knows_what_came_before(log: SplitLog) -> None:
    assert log.events_before().tolist() == [0, 1, 2, 3, 0, 1, 2]
    search = next_items(log, TEST)
    assert np.flatnonzero(search.known).tolist() == [0, 1, 2, 4, 5]
    assert np.flatnonzero(search.wanted).tolist() == [3, 6]
    assert np.flatnonzero(cold_items(log, TEST).candidates).tolist() == [4, 5]
    cold = replace(log, part=np.array([TEST] * 4 + [TRAIN] * 3, np.int8))
    search = cold_users(3)(cold, TEST)
    assert np.flatnonzero(search.known).tolist() == [0, 1, 2, 4, 5, 6]
    assert np.flatnonzero(search.wanted).tolist() == [3]


def test_an_earlier_history_lacks_what_shares_the_time_of_what_is_wanted(log: SplitLog) -> None:
    tied = replace(log, time=np.array([1, 2, 3, 3, 5, 5, 5]))
    search = earlier(tied, TEST)
    assert np.flatnonzero(search.history).tolist() == [0, 1]
    assert np.array_equal(search.known, next_items(tied, TEST).known)
    popular = np.array([0, 3, 2, 2, 4, 1, 0], np.float32)
    scores = np.zeros((3, 7), np.float32)
    scores[:, 6] = 1
    top = top_items(tied, search, scores, popular)
    assert top[1, :3].tolist() == [6, 4, 5]
    assert top[2, :3].tolist() == [4, 3, 5]  # nothing tells the taste of user 2: what is popular


def test_lists_leave_out_what_is_known_and_rank_ties_by_popularity(log: SplitLog) -> None:
    search = next_items(log, VALIDATION)
    popular = popularity(log, log.part == TRAIN)
    assert popular.tolist() == [0, 1, 2, 0, 0, 0, 0]
    scores = np.zeros((3, 7), np.float32)
    scores[2, [4, 2]] = 1, 5  # user 2 knows item 2
    top = top_items(log, search, scores, popular)
    assert top.shape == (3, DEPTH)
    assert top[2, :3].tolist() == [4, 1, 3]
    assert top[0, :2].tolist() == [2, 1]  # nothing is known of user 0
    assert (top[2, 5:] == 0).all()  # five of six items are left


def test_ndcg_is_ours() -> None:
    rng = np.random.default_rng(0)
    user, item = np.repeat(np.arange(1, 31), 8), rng.integers(1, 60, 240)
    part = rng.integers(0, 3, 240)
    log = tiny_split(user.tolist(), item.tolist(), part.tolist(), num_items=60)
    search = next_items(log, TEST)
    search = replace(search, wanted=search.wanted & ~np.isin(user * 60 + item, _met(log, search)))
    top = top_items(log, search, rng.random((31, 60), np.float32), np.ones(60, np.float32))
    task = measured.ranking_task(log, search)
    result = measured.judge(top[task.users], task, num_items=60, ks=(10, 20))
    for k in (10, 20):
        assert ndcg(log, search, top, k) == pytest.approx(result.mean[f"ndcg@{k}"], abs=1e-12)


def _met(log: SplitLog, search: Search) -> NDArray[np.int64]:
    return (log.user * log.num_items + log.item)[search.known]
