"""The bounds of the quality benchmark, over answers made by hand."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flm_benchmarks import quality, verdicts
from flm_benchmarks.peers.measured import EARLIER, Measured
from flm_benchmarks.peers.split_log import TEST, TRAIN, VALIDATION, SplitLog
from flm_benchmarks.peers.top_items import DEPTH
from flm_benchmarks.stages import verdict
from tiny_split import tiny_split

from flm_torchrec.errors import UserError
from flm_torchrec.evaluation.compare import Estimate

VARIANTS = ["flm", "wide", "linear"]
PEERS = ["ease", "sasrec", "svd", "bias", "fm"]
USERS = 4


@pytest.fixture
def log() -> SplitLog:
    """Four users who met 1, then 2 (validation), then 3 (test)."""
    user = np.repeat(np.arange(1, USERS + 1), 3).tolist()
    return tiny_split(user, [1, 2, 3] * USERS, [TRAIN, VALIDATION, TEST] * USERS)


def measured_row(peer: str, figure: float, *, validation: float = 0.5, **more: Any) -> Measured:
    given: dict[str, Any] = {"setting": {}, "by_seed": [], "users": np.arange(1, 1 + USERS)}
    given |= {"mean": {"ndcg@10": figure}, "per_user": {"ndcg@10": np.full(USERS, figure)}}
    return Measured(peer=peer, validation=validation, **(given | more))


def write_answer(out: Path, peer: str, places: list[int], *, validation: float = 0.5) -> None:
    """Lists with what is to be found at each user's place, from 0; usual and earlier."""
    top = np.zeros((USERS + 1, DEPTH), np.int64)
    for user, place in enumerate(places, 1):
        rest = [4, 5, 6]
        top[user, : len(rest) + 1] = [*rest[:place], 3, *rest[place:]]
    final = {"seed": 0, "validation": validation, "seconds": 2.0}
    told = {"peer": peer, "chosen": {}, "tried": [final], "finals": [final]}
    out.mkdir(exist_ok=True)
    (out / f"{peer}.json").write_text(json.dumps(told))
    np.savez(out / f"{peer}.0.npz", answer=top, earlier=top)


def test_ours_is_chosen_on_validation_and_the_peer_on_the_test() -> None:
    rows = [
        measured_row("flm", 0.3, validation=0.2),
        measured_row("wide", 0.2, validation=0.4),
        measured_row("linear", 0.6, validation=0.9),
        measured_row("ease", 0.1, validation=0.8),
        measured_row("sasrec", 0.16, validation=0.1),
        measured_row("of_old", 0.9, validation=0.9),
    ]
    found = verdicts.contest("it", "ranking", rows, VARIANTS, PEERS)
    assert (found.ours.peer, found.best.peer) == ("wide", "sasrec")
    bounds = verdicts.bounds_of(found, {"times": 1.3, "low": 1.1})
    assert [bound["name"] for bound in bounds] == [
        "it, ndcg@10 over sasrec",
        "it, ndcg@10 over sasrec, low end",
    ]
    assert [bound["value"] for bound in bounds] == pytest.approx([1.25, 1.25])
    assert [bound["passed"] for bound in bounds] == [False, True]
    ratios = {row["name"]: row["ours_over_it"] for row in found.record()["rows"]}
    assert list(ratios) == ["linear", "flm", "wide", "sasrec", "ease"]
    assert ratios["wide"] is None
    assert ratios["linear"]["value"] == pytest.approx(1 / 3)


def test_above_the_best_is_more_than_as_good() -> None:
    rows = [measured_row("flm", 0.2), measured_row("ease", 0.2)]
    (bound,) = verdicts.bounds_of(
        verdicts.contest("it", "ranking", rows, VARIANTS, PEERS), {"times": 1}
    )
    assert not bound["passed"]


def test_cold_users_are_compared_at_each_number_of_clicks() -> None:
    rows = [
        measured_row(f"{name}.{clicks}", figure)
        for clicks, figures in {10: (0.3, 0.2), 0: (0.1, 0.2)}.items()
        for name, figure in zip(("flm", "ease"), figures, strict=True)
    ]
    found = list(verdicts.contests("cold", "cold_users", rows, VARIANTS, PEERS))
    assert [one.name for one in found] == ["cold, 0 clicks", "cold, 10 clicks"]
    passed = [bound["passed"] for one in found for bound in verdicts.bounds_of(one, {"times": 1})]
    assert passed == [False, True]


def test_of_errors_less_is_better() -> None:
    def row(peer: str, rmse: float) -> Measured:
        loss = {"squared_error": np.full(USERS, rmse**2)}
        return measured_row(peer, 0.0, mean={"rmse": rmse}, per_user=loss)

    rows = [row("flm", 0.9), row("svd", 0.92), row("bias", 0.95)]
    found = verdicts.contest("ratings", "ratings", rows, VARIANTS, PEERS)
    assert found.best.peer == "svd"
    (bound,) = verdicts.bounds_of(found, {"most": 0.905})
    assert (bound["value"], bound["passed"]) == (0.9, True)
    assert found.record()["rows"][0]["name"] == "flm"


def test_clicks_must_be_ahead_of_the_best() -> None:
    def row(peer: str, auc: float) -> Measured:
        loss = {"log_loss": np.ones(USERS)}
        return measured_row(peer, 0.0, mean={"auc": auc}, per_user=loss)

    found = verdicts.contest(
        "clicks", "clicks", [row("flm", 0.75), row("fm", 0.748)], VARIANTS, PEERS
    )
    (bound,) = verdicts.bounds_of(found, {"ahead": 0.003})
    assert bound["value"] == pytest.approx(0.002)
    assert not bound["passed"]


def test_answers_of_one_side_alone_are_told() -> None:
    with pytest.raises(UserError, match=r"it: needs answers of ours and of peers; has \['ease'\]"):
        verdicts.contest("it", "ranking", [measured_row("ease", 0.1)], VARIANTS, PEERS)


def test_a_suite_is_judged_by_the_answers_in_its_folder(
    log: SplitLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "answers"
    write_answer(out, "flm", [0, 0, 0, 0])
    write_answer(out, "linear", [0, 0, 0, 1])
    write_answer(out, "sasrec", [1, 1, 1, 1])
    suite = quality.SUITES[quality.HEADLINE]
    bounds, records = quality.judged(quality.HEADLINE, suite, log, out)
    at_second = 1 / np.log2(3)
    assert [bound["value"] for bound in bounds] == pytest.approx([1 / at_second] * 3)
    assert [bound["bound"] for bound in bounds] == [1.3, 1.1, 1]
    assert all(bound["passed"] for bound in bounds)
    assert [record["what"] for record in records] == [quality.HEADLINE, EARLIER]
    assert "ranking_last (ours over each by ndcg@10)" in capsys.readouterr().out
    assert quality.spent(out) == 12  # two units each


def test_the_suites_ask_for_what_the_issue_demands() -> None:
    required = {name: suite.required for name, suite in quality.SUITES.items()}
    assert required == {
        "ranking_last": {"ranking": {"times": 1.3, "low": 1.1}, EARLIER: {"times": 1}},
        "ranking_time": {"ranking": {"times": 1}},
        "ranking_latest": {"ranking": {"times": 1.15}},
        "cold_items": {"cold_items": {"times": 1.05}},
        "cold_users": {"cold_users": {"times": 1}},
        "clicks": {"clicks": {"ahead": 0.003}},
        "ratings": {"ratings": {"most": 0.905}},
    }


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(1.01, 1.2, "helps"), (0.8, 0.99, "hurts"), (0.9, 1.1, "undecided")],
)
def test_a_stage_helps_where_its_interval_says_so(low: float, high: float, expected: str) -> None:
    assert verdict(Estimate(value=1.0, low=low, high=high)) == expected


def test_data_that_cannot_be_fetched_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="latest: is not there; make it with `flm data convert"):
        quality.data_folder(tmp_path, "latest")


def test_a_peer_that_is_out_of_time_is_left(log: SplitLog, tmp_path: Path) -> None:
    log.write(tmp_path / "split.npz")
    at = quality.Place(data=tmp_path, work=tmp_path, kept=tmp_path, quick=True, until=0)
    module = ["flm_benchmarks.peers.clicks"]
    with pytest.raises(quality.OutOfTimeError):
        quality.answered(sys.executable, module, tmp_path / "split.npz", tmp_path / "out", at)
