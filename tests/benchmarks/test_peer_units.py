"""Peers are tuned on validation, asked once for the test, and go on where they were."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from flm_benchmarks.peers import clicks, measured, units
from flm_benchmarks.peers.factorisation import DeepFM, padded
from flm_benchmarks.peers.split_log import TEST, TRAIN, VALIDATION, SplitLog
from flm_benchmarks.peers.top_items import DEPTH
from numpy.typing import NDArray
from scipy import sparse
from tiny_split import tiny_split

from flm_torchrec.errors import UserError


class Diary:
    """A peer whose validation figures are known, and what it was asked."""

    def __init__(self, course: dict[int, list[float]]) -> None:
        self.course = course  # of each `size`, the quality round by round
        self.trained: list[tuple[int, int]] = []
        self.asked: list[tuple[int, int, int]] = []

    def fit(self, log: SplitLog, setting: units.Setting, seed: int) -> Iterator[units.Answer]:
        del log
        size = setting["size"]
        self.trained.append((size, seed))
        for place, quality in enumerate(self.course[size]):

            def answer(part: int, place: int = place, quality: float = quality) -> NDArray[Any]:
                self.asked.append((size, part, place))
                return np.array([quality, place, seed])

            yield answer

    def peer(self, *, is_random: bool) -> units.Peer:
        def quality(log: SplitLog, answer: NDArray[Any], part: int) -> float:
            del log
            assert part == VALIDATION
            return float(answer[0])

        return units.Peer(fit=self.fit, quality=quality, grid="diary", is_random=is_random)


@pytest.fixture
def log() -> SplitLog:
    parts = [TRAIN, TRAIN, VALIDATION, TEST, TRAIN, VALIDATION, TEST]
    return tiny_split([1, 1, 1, 1, 2, 2, 2], [1, 2, 3, 4, 2, 1, 5], parts)


GRID = {"size": [1, 2, 3]}
COURSE = {1: [0.1, 0.3, 0.2], 2: [0.2, 0.5, 0.4], 3: [0.4]}


def test_the_best_setting_and_round_on_validation_answer_the_test(
    log: SplitLog, tmp_path: Path
) -> None:
    diary = Diary(COURSE)
    told = units.run_peer("it", diary.peer(is_random=True), log, GRID, tmp_path, quick=False)
    assert told["chosen"] == {"size": 2}
    assert diary.trained == [(1, 0), (2, 0), (3, 0), (2, 0), (2, 1), (2, 2)]
    assert {size for size, part, _ in diary.asked if part == TEST} == {2}
    for seed in units.SEEDS:
        with np.load(tmp_path / f"it.{seed}.npz") as arrays:
            assert arrays["answer"].tolist() == [0.5, 1, seed]
    assert json.loads((tmp_path / "it.json").read_text()) == told
    assert [figures["validation"] for figures in told["tried"]] == [0.3, 0.5, 0.4]


def test_a_peer_without_chance_runs_once_and_a_quick_one_has_one_setting(
    log: SplitLog, tmp_path: Path
) -> None:
    sure, quick = Diary(COURSE), Diary(COURSE)
    units.run_peer("sure", sure.peer(is_random=False), log, GRID, tmp_path, quick=False)
    assert sure.trained == [(1, 0), (2, 0), (3, 0), (2, 0)]
    units.run_peer("quick", quick.peer(is_random=True), log, GRID, tmp_path, quick=True)
    assert quick.trained == [(1, 0), (1, 0)]


def test_a_rerun_skips_what_is_there_unless_the_split_is_another(
    log: SplitLog, tmp_path: Path
) -> None:
    diary = Diary(COURSE)
    peer = diary.peer(is_random=True)
    first = units.run_peer("it", peer, log, GRID, tmp_path, quick=False)
    (tmp_path / "it.1.npz").unlink()
    shutil.rmtree(tmp_path / "tuning")
    diary.trained.clear()
    again = units.run_peer("it", peer, log, GRID, tmp_path, quick=False)
    assert diary.trained == [(2, 1)]
    assert again["chosen"] == first["chosen"]
    assert again["tried"] == first["tried"]
    diary.trained.clear()
    other = tiny_split(log.user.tolist(), log.item.tolist(), log.part[::-1].tolist())
    units.run_peer("it", peer, other, GRID, tmp_path, quick=False)
    assert len(diary.trained) == 6


def test_training_ends_when_validation_gains_no_more(log: SplitLog) -> None:
    diary = Diary({1: [0.2, 0.3] + 20 * [0.25]})
    figures, answers = units.run_unit(
        diary.peer(is_random=True), log, {"size": 1}, 0, with_test=True
    )
    assert (figures["best_round"], figures["rounds"]) == (2, 2 + units.PATIENCE)
    assert not figures["out_of_time"]
    assert answers["answer"].tolist() == [0.3, 1, 0]


def test_the_grid_has_what_the_families_need() -> None:
    grid = yaml.safe_load(units.GRID.read_text(encoding="utf-8"))
    assert set(grid) == {*measured.FAMILIES, "ranking_latest"}
    assert grid["ranking_latest"].keys() == grid["ranking"].keys()
    assert {peer.grid for peer in clicks.PEERS.values()} == grid["clicks"].keys()
    settings = units.settings(grid["clicks"]["logistic"], quick=True)
    assert settings == [{"c": 0.3, "features": False}]


def write_answers(out: Path, peer: str, answers: list[NDArray[Any]]) -> None:
    finals = [{"seed": seed, "validation": 0.5} for seed in range(len(answers))]
    told = {"peer": peer, "chosen": {"size": 1}, "tried": [], "finals": finals}
    (out / f"{peer}.json").write_text(json.dumps(told))
    for seed, answer in enumerate(answers):
        np.savez(out / f"{peer}.{seed}.npz", answer=answer)


def lists(rows: dict[int, list[int]]) -> NDArray[np.int64]:
    top = np.zeros((3, DEPTH), np.int64)
    for user, items in rows.items():
        top[user, : len(items)] = items
    return top


def test_lists_are_measured_by_our_metrics_and_averaged_over_seeds(
    log: SplitLog, tmp_path: Path
) -> None:
    first = lists({1: [5, 4, 6], 2: [3, 4]})  # to be found: 4 by user 1, 5 by user 2
    second = lists({1: [4], 2: [5]})
    write_answers(tmp_path, "it", [first, second])
    (found,) = measured.measured("ranking", log, tmp_path)
    at_second = 1 / np.log2(3)
    assert found.users.tolist() == [1, 2]
    assert found.per_user["ndcg@10"] == pytest.approx([(1 + at_second) / 2, 0.5])
    assert [one["ndcg@10"] for one in found.by_seed] == pytest.approx([at_second / 2, 1.0])
    assert found.mean["hr@10"] == 0.75
    assert (found.setting, found.validation) == ({"size": 1}, 0.5)


@pytest.mark.parametrize("items", [[1], [3], [6, 6]], ids=["known", "validation", "twice"])
def test_lists_with_what_must_not_be_in_them_are_refused(
    items: list[int], log: SplitLog, tmp_path: Path
) -> None:
    write_answers(tmp_path, "it", [lists({1: items})])
    with pytest.raises(UserError, match="it: gave user row 1 an item that they know, that is no"):
        measured.measured("ranking", log, tmp_path)


def test_lists_for_cold_items_hold_nothing_else(log: SplitLog, tmp_path: Path) -> None:
    write_answers(tmp_path, "it", [lists({1: [5, 4], 2: [4]})])
    (found,) = measured.measured("cold_items", log, tmp_path)
    assert found.mean["hr@10"] == 0.5
    write_answers(tmp_path, "it", [lists({1: [6]})])
    with pytest.raises(UserError, match="user row 1"):
        measured.measured("cold_items", log, tmp_path)


def test_predictions_are_measured_by_our_metrics(tmp_path: Path) -> None:
    log = tiny_split([1, 1, 1, 2, 2], [1, 2, 3, 1, 2], [TEST] * 5)  # ratings 1 to 5
    write_answers(tmp_path, "it", [np.array([2.0, 2, 3, 4, 7])])
    (found,) = measured.measured("ratings", log, tmp_path)
    assert found.mean["rmse"] == pytest.approx(1.0)
    assert found.per_user["squared_error"].tolist() == [1, 4]
    write_answers(tmp_path, "it", [np.array([0.1, 0.6, 0.2, 0.5, 0.9])])
    (found,) = measured.measured("clicks", log, tmp_path)
    assert found.mean["auc"] == pytest.approx(5 / 6)
    losses = found.per_user["log_loss"]
    assert losses.sum() / 5 == pytest.approx(found.mean["log_loss"])
    assert losses[1] == pytest.approx(-np.log(0.5) - np.log(0.9))


def test_no_answers_are_told(log: SplitLog, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no peer of ranking has answered yet"):
        measured.measured("ranking", log, tmp_path)


def test_an_fm_is_weights_and_products_of_fields() -> None:
    model = DeepFM([3, 4], width=2, hidden=[], dropout=0.0)
    fields = [torch.tensor([[1], [2]]), torch.tensor([[1, 3], [2, 0]])]
    rows = [table(field).sum(1) for table, field in zip(model.factors, fields, strict=True)]
    weights = [table(field).sum((1, 2)) for table, field in zip(model.weights, fields, strict=True)]
    expected = weights[0] + weights[1] + (rows[0] * rows[1]).sum(1)
    assert torch.allclose(model(fields), expected, atol=1e-6)


def test_every_weight_of_deepfm_has_a_gradient() -> None:
    model = DeepFM([3, 4], width=2, hidden=[32, 16], dropout=0.0)
    model([torch.tensor([[1], [2]]), torch.tensor([[1, 3], [2, 0]])]).square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


def test_values_are_padded_from_one() -> None:
    values = sparse.csr_matrix(np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0]]))
    assert padded(values).tolist() == [[2, 3], [0, 0], [1, 0]]


@pytest.mark.parametrize("name", ["logistic", "fm", "deepfm"])
def test_click_models_learn_who_likes_what(name: str) -> None:
    rng = np.random.default_rng(0)
    user, item = np.sort(rng.integers(1, 21, 4000)), rng.integers(1, 11, 4000)
    log = tiny_split(user.tolist(), item.tolist(), rng.integers(0, 3, 4000).tolist(), 11)
    log.like[:] = rng.random(4000) < 1 / (1 + np.exp(0.4 * (user - 10) + item - 5))
    setting = {"c": 1.0, "features": True, "width": 4, "hidden": [8], "dropout": 0.1}
    setting |= {"lr": 0.02, "decay": 0.01, "batch": 128}
    peer = clicks.PEERS[name]
    figures, answers = units.run_unit(peer, log, setting, 0, with_test=True)
    assert answers["answer"].shape == (int((log.part == TEST).sum()),)
    assert figures["validation"] > -0.5  # log loss: 0.69 by chance
