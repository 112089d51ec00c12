import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from flm_benchmarks.sharding import run
from flm_benchmarks.sharding.model import IDS_PER_BAG, Work, batches
from flm_benchmarks.sharding.run import main, measure
from two_ranks.pool import Ranks

from flm_torchrec.training.runtime import Runtime
from flm_torchrec.training.sharding import SHARDING_TYPES

SMALL = ["--rows", "50", "--dim", "4", "--tables", "2", "--batch-size", "8", "--steps", "3"]


def test_every_sharding_type_has_its_figures_or_a_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, "--out", str(tmp_path / "lines.jsonl")]) == 0
    text = (tmp_path / "lines.jsonl").read_text()
    out = capfd.readouterr().out
    assert out.startswith(text)
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["sharding"] for line in lines] == list(SHARDING_TYPES)
    for line in lines:
        assert (line["rows"], line["dim"], line["tables"], line["steps"]) == (50, 4, 2, 3)
        assert line["versions"].keys() >= {"torch", "torchrec"}
        assert line["machine"]["cores"] >= 1
        if "reason" in line:
            assert f"{line['sharding']}: {line['reason']}" in out
        else:
            assert 0 < line["median_ms"] <= line["p90_ms"]
    measured = {line["sharding"] for line in lines if "reason" not in line}
    assert measured >= {"table_wise", "row_wise", "data_parallel"}


def test_a_type_that_fails_is_told_with_the_reason(alone: Runtime) -> None:
    work = Work(tables=1, rows=10, dim=4, batch_size=8)
    line = measure(alone, work, "diagonal", steps=2)
    assert line["reason"].startswith("UserError: sharding.default: 'diagonal' is not one of")


def measured(runtime: Runtime, sharding: str) -> dict[str, Any]:
    return measure(runtime, Work(tables=2, rows=50, dim=4, batch_size=8), sharding, steps=3)


@pytest.mark.parametrize("sharding", SHARDING_TYPES)
def test_every_sharding_type_has_figures_on_two_ranks(sharding: str, ranks: Ranks) -> None:
    first, second = ranks.run(measured, sharding)
    assert "reason" not in first
    assert first == second
    assert 0 < first["median_ms"] <= first["p90_ms"]
    assert first["samples_per_s"] == pytest.approx(8e3 / first["median_ms"], rel=0.01)


SLOW, FAST = 3.0, 1.0  # seconds of a step


def measured_by_an_uneven_clock(runtime: Runtime) -> dict[str, Any]:
    """A step takes SLOW seconds on rank 1 and FAST ones on rank 0, by clocks set for it."""
    step = (FAST, SLOW)[runtime.rank]
    ticks = (place * step for place in itertools.count())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "perf_counter", lambda: next(ticks))
        return measured(runtime, "table_wise")


def test_the_figures_are_those_of_the_slowest_rank(ranks: Ranks) -> None:
    for line in ranks.run(measured_by_an_uneven_clock):
        assert (line["median_ms"], line["p90_ms"]) == (1e3 * SLOW, 1e3 * SLOW)
        assert line["samples_per_s"] == pytest.approx(8 / SLOW, rel=0.05)


def test_without_any_figures_the_exit_code_is_1(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "SHARDING_TYPES", ("diagonal", "spiral"))
    assert main(SMALL) == 1
    assert "spiral: UserError" in capfd.readouterr().out


def test_ranks_share_the_global_batch() -> None:
    work = Work(tables=2, rows=50, dim=4, batch_size=8)
    whole = next(batches(work, 0, 1))
    parts = [next(batches(work, rank, 2)) for rank in range(2)]
    for name in work.features:
        ids = [part.features[name].values().tolist() for part in parts]
        assert ids[0] + ids[1] == whole.features[name].values().tolist()
    assert whole.features.values().numel() == 2 * 8 * IDS_PER_BAG


def test_table_traffic_counts_lookups_and_distinct_rows() -> None:
    work = Work(tables=2, rows=1, dim=4, batch_size=8)
    lookups, distinct = 2 * 8 * IDS_PER_BAG, 2
    assert work.table_bytes() == 4 * (lookups * 4 + distinct * 2 * (4 + 1))


@pytest.mark.parametrize("wrong", [["--rows", "0"], ["--steps", "-1"], ["--dim", "x"]])
def test_a_size_that_is_no_size_is_refused(
    wrong: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(wrong)
    assert wrong[0] in capfd.readouterr().err
