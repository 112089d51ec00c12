from pathlib import Path

import pytest
from flm_benchmarks.compare import main, paired_ratio
from sharding_lines import MACHINE, line, write

KINDS = ("table_wise", "row_wise", "auto")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    lines = [line(kind) for kind in KINDS]
    return write(tmp_path / "old.jsonl", [*lines, line("grid_shard", status="impossible")])


def test_a_run_passes_against_itself(old: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(old), str(old)]) == 0
    out = capfd.readouterr().out
    assert "SLOWER" not in out
    assert "3 lines compared, 0 worse; all together 1.000x" in out
    assert "busy" not in out


def test_a_slow_down_of_a_fifth_names_the_line(
    old: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    slow = [line(kind, seconds=0.012 if kind == "row_wise" else 0.01) for kind in KINDS]
    assert main([str(old), str(write(tmp_path / "new.jsonl", slow))]) == 1
    told = [text for text in capfd.readouterr().out.splitlines() if "SLOWER" in text]
    assert len(told) == 1
    assert told[0].startswith("row_wise fused sparse_dist, small, fp32, batch 64, uniform, 2 ranks")
    assert "1.200x" in told[0]


def test_what_is_faster_is_no_regression(old: Path, tmp_path: Path) -> None:
    new = write(tmp_path / "new.jsonl", [line(kind, seconds=0.005) for kind in KINDS])
    assert main([str(old), str(new)]) == 0


def test_a_line_that_fails_now_is_worse(
    old: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    new = write(tmp_path / "new.jsonl", [line("auto", status="failed"), line("row_wise")])
    assert main([str(old), str(new)]) == 1
    out = capfd.readouterr().out
    assert "auto fused sparse_dist" in out
    assert "was measured, is failed: RuntimeError: out of memory" in out
    assert "table_wise fused sparse_dist" in out
    assert f"not in {new}" in out


def test_another_machine_is_refused_unless_asked_for(
    old: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = {**MACHINE, "processor": "another"}
    new = write(tmp_path / "new.jsonl", [line(kind, machine=other) for kind in KINDS])
    assert main([str(old), str(new)]) == 2
    err = capfd.readouterr().err
    assert "measured on different machines (processor one and another)" in err
    assert main([str(old), str(new), "--any-machine"]) == 0
    same = write(tmp_path / "same.jsonl", [line(machine={**MACHINE, "system": "Linux 2"})])
    assert main([str(old), str(same)]) == 0


def test_another_schema_is_refused(
    old: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = line()
    del before["setting"]["point"]["rows"]  # as the schema before this one had it
    new = write(tmp_path / "new.jsonl", [{**before, "schema": 1}])
    assert main([str(old), str(new)]) == 2
    assert "line 1: schema 1; this version reads 3" in capfd.readouterr().err


def test_what_cannot_be_compared_is_told(
    old: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for lines, told in (
        ([line(world_size=4)], "have no setting in common"),
        ([line(steps=2)], "2 repeats; allowed: 5 or more"),
    ):
        assert main([str(old), str(write(tmp_path / "new.jsonl", lines))]) == 2
        assert told in capfd.readouterr().err
    without = {key: value for key, value in line().items() if key != "repeats"}
    assert main([str(old), str(write(tmp_path / "new.jsonl", [without]))]) == 2
    assert "has no repeats of a step" in capfd.readouterr().err
    assert main([str(old), str(old), "--allowed", "nan"]) == 2
    assert "--allowed: nan; allowed: 0 or more" in capfd.readouterr().err
    assert main([str(old), str(tmp_path / "absent.jsonl")]) == 2
    assert "absent.jsonl: No such file" in capfd.readouterr().err


def test_one_bad_repeat_is_no_slow_down() -> None:
    old = [1.0] * 20
    ratio = paired_ratio(old, [1.0] * 19 + [50.0])
    assert not ratio.is_slower(0.1)
    assert paired_ratio(old, [1.2] * 20).is_slower(0.1)
    assert not paired_ratio(old, [1.05] * 20).is_slower(0.1)


def test_a_busy_machine_is_told(
    old: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    new = write(tmp_path / "new.jsonl", [{**line(), "load": 8.25}])
    assert main([str(old), str(new)]) == 0
    assert "busy with other programs: load 8.2 on 2 cores" in capfd.readouterr().out
