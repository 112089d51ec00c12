"""What the demo demands of its report, and how it shows recommendations; no stage is run."""

from typing import Any

import pandas as pd
import pytest
import tiny
from flm_apps.demo import checks, merged, show_users

from flm_torchrec.evaluation.bounds import as_table

MISSING = object()


def report(place: str = "", value: object = None) -> dict[str, Any]:
    """A report that passes every check; with `place`, "test/ndcg@10" say, set or MISSING."""
    made: dict[str, Any] = {
        "test": {"ndcg@10": 0.13, "auc_like": 0.82, "rmse_rating": 0.97},
        "baselines": {
            "popularity": {"ndcg@10": 0.04},
            "item_knn": {"ndcg@10": 0.05},
            "ease": {"ndcg@10": 0.07},
            "content_knn": {"ndcg@10": 0.01},
            "bias": {"auc_like": 0.78, "rmse_rating": 1.03},
        },
        "mlm": {"accuracy": 0.34, "most_frequent": 0.11},
        "tasks": {"rank": {"first": 6.9, "last": 5.0}, "mlm": {"first": 9.3, "last": 3.6}},
        "cold_items": {"ndcg@20": 0.38, "content_knn": 0.21},
        "seconds": {"total": 240.0},
        "peak_memory_gib": 0.9,
    }
    *path, name = place.split("/")
    inner = made
    for key in path:
        inner = inner[key]
    if value is MISSING:
        del inner[name]
    elif place:
        inner[name] = value
    return made


def failed(of: dict[str, Any]) -> list[str]:
    return [check["name"] for check in checks(of) if not check["passed"]]


def test_a_good_report_passes_every_check() -> None:
    found = checks(report())
    assert all(check["passed"] is True for check in found)
    assert [check["name"] for check in found] == [
        "test ndcg@10",
        "test ndcg@10 above popularity",
        "test ndcg@10 above item_knn",
        "test ndcg@10 above ease",
        "test ndcg@10 above content_knn",
        "test auc_like no worse than bias",
        "test rmse_rating no worse than bias",
        "mlm accuracy above the most frequent token",
        "cold items, test ndcg@20 above content_knn",
        "seconds",
        "peak memory of a rank, GiB",
        "loss of rank falls",
        "loss of mlm falls",
    ]
    assert all(check.keys() == {"name", "passed", "value", "bound"} for check in found)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("baselines/ease/ndcg@10", 0.129),
        ("baselines/bias/auc_like", 0.82),
        ("baselines/bias/rmse_rating", 0.97),
        ("seconds/total", 720.0),
        ("peak_memory_gib", 2.49),
    ],
)
def test_what_just_suffices_passes(place: str, value: float) -> None:
    assert failed(report(place, value)) == []


def test_the_floor_itself_is_enough() -> None:
    assert failed(report("test/ndcg@10", 0.12)) == []


@pytest.mark.parametrize(
    ("place", "value", "name"),
    [
        ("baselines/ease/ndcg@10", 0.13, "test ndcg@10 above ease"),
        ("baselines/popularity/ndcg@10", 0.5, "test ndcg@10 above popularity"),
        ("test/ndcg@10", 0.1199, "test ndcg@10"),
        ("test/auc_like", 0.7799, "test auc_like no worse than bias"),
        ("test/rmse_rating", 1.0301, "test rmse_rating no worse than bias"),
        ("mlm/accuracy", 0.11, "mlm accuracy above the most frequent token"),
        ("cold_items/ndcg@20", 0.21, "cold items, test ndcg@20 above content_knn"),
        ("seconds/total", 720.5, "seconds"),
        ("peak_memory_gib", 2.5, "peak memory of a rank, GiB"),
        ("tasks/rank/last", 6.9, "loss of rank falls"),
        ("tasks/mlm/last", 10.0, "loss of mlm falls"),
    ],
)
def test_what_does_not_suffice_fails(place: str, value: float, name: str) -> None:
    assert failed(report(place, value)) == [name]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), MISSING])
@pytest.mark.parametrize(
    ("place", "name", "side"),
    [
        ("test/auc_like", "test auc_like no worse than bias", "value"),
        ("baselines/bias/rmse_rating", "test rmse_rating no worse than bias", "bound"),
        ("baselines/content_knn/ndcg@10", "test ndcg@10 above content_knn", "bound"),
        ("mlm/accuracy", "mlm accuracy above the most frequent token", "value"),
        ("cold_items/content_knn", "cold items, test ndcg@20 above content_knn", "bound"),
        ("peak_memory_gib", "peak memory of a rank, GiB", "value"),
        ("tasks/rank/first", "loss of rank falls", "bound"),
    ],
)
def test_a_figure_that_is_none_fails_and_says_so(
    place: str, name: str, side: str, value: object
) -> None:
    (check,) = [check for check in checks(report(place, value)) if not check["passed"]]
    assert (check["name"], check["reason"]) == (name, f"{side} missing")


@pytest.mark.parametrize(
    ("place", "failures"),
    [
        ("test", 7),
        ("baselines", 6),
        ("baselines/ease", 1),
        ("baselines/bias", 2),
        ("mlm", 1),
        ("cold_items", 1),
    ],
)
@pytest.mark.parametrize("value", [None, MISSING])
def test_a_part_that_is_missing_fails_each_of_its_checks(
    place: str, failures: int, value: object
) -> None:
    assert len(failed(report(place, value))) == failures


def test_failed_checks_are_marked_with_the_reason() -> None:
    of = report("test/auc_like", None)
    of["seconds"]["total"] = 900.0
    lines = as_table(checks(of)).splitlines()
    told = {line.split("  ")[0]: line for line in lines if "FAILED" in line}
    assert told.keys() == {"test auc_like no worse than bias", "seconds"}
    assert told["seconds"].endswith("900.0000    720.0000  FAILED")
    assert told["test auc_like no worse than bias"].endswith("-      0.7800  FAILED: value missing")


def stage(**more: Any) -> dict[str, Any]:
    return {"tasks": {}, "mlm": {}, "peak_memory_gib": 1.0, **more}


def test_a_task_of_both_stages_falls_from_the_first_to_the_last() -> None:
    one = {"rank": {"first": 7.0, "last": 5.2}, "mlm": {"first": 9.0, "last": 3.0}}
    two = {"rank": {"first": 5.1, "last": 5.0}, "like": {"first": 0.7, "last": 0.5}}
    of = merged(stage(tasks=one, mlm={"accuracy": 0.3}), stage(tasks=two, test={"hr@10": 0.2}))
    assert of["tasks"] == {
        "rank": {"first": 7.0, "last": 5.0},
        "mlm": {"first": 9.0, "last": 3.0},
        "like": {"first": 0.7, "last": 0.5},
    }
    assert of["mlm"] == {"accuracy": 0.3}
    assert of["test"] == {"hr@10": 0.2}


def test_the_representation_is_that_of_the_second_stage() -> None:
    views = {"title": {"uniformity": -3.0, "fusion_weight": 0.4}}
    of = merged(stage(), stage(diagnostics=views, collapses=[]))
    assert of["diagnostics"] == views
    assert of["collapses"] == []


@pytest.mark.parametrize(
    ("one", "two", "most"), [(1.0, 2.0, 2.0), (2.0, 1.0, 2.0), (None, 1.0, 1.0), (None, None, None)]
)
def test_the_peak_is_that_of_the_stages_which_tell_theirs(
    one: float | None, two: float | None, most: float | None
) -> None:
    assert merged(stage(peak_memory_gib=one), stage(peak_memory_gib=two))["peak_memory_gib"] == most
    without = stage()
    del without["peak_memory_gib"]
    assert merged(without, stage(peak_memory_gib=two))["peak_memory_gib"] == two


def shown(out: str) -> dict[str, list[tuple[str, str]]]:
    """user -> (met, recommended) of each line below the user's head."""
    blocks = [block.rstrip("\n").split("\n") for block in out.split("\nuser ")[1:]]
    return {
        user: [(line[2:60].strip(), line[62:].strip()) for line in lines]
        for user, _, *lines in blocks
    }


def test_users_are_shown_with_their_own_latest_events_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = pd.DataFrame(
        {"user_id": ["u6"] * 3, "item_id": ["i8", "i2", "i3"], "rank": [1, 3, 2], "score": 1.0}
    )
    show_users(tiny.dataset(), table, count=6, latest=5)
    users = shown(capsys.readouterr().out)
    assert list(users) == ["u1", "u2", "u3", "u4", "u5", "u6"]
    # u6 met items 6 and 1 only, u1 items 1 to 7.
    assert users["u6"] == [("red car", "old train"), ("blue plane", "red boat"), ("", "blue car")]
    latest = ["i7", "blue plane", "red plane", "blue boat", "red boat"]
    assert users["u1"] == [(title, "") for title in latest]


def test_no_user_is_shown_twice(capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.DataFrame({"user_id": [], "item_id": [], "rank": [], "score": []})
    show_users(tiny.dataset(), table, count=20)
    assert capsys.readouterr().out.count("\nuser ") == 6
