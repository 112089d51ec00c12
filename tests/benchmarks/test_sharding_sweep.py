import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from calibrations import calibration
from flm_benchmarks.sharding.lines import key_of, read_lines
from flm_benchmarks.sharding.measure import Work
from flm_benchmarks.sharding.model import PooledModel, SampleBatch
from flm_benchmarks.sharding.point import Point
from flm_benchmarks.sharding.run import main
from flm_benchmarks.sharding.sweep import KILLED, Journal, sweep
from flm_benchmarks.sharding.together import Failure, Together
from torch import Tensor
from two_ranks.pool import Ranks

from flm_torchrec.errors import UserError
from flm_torchrec.planning.calibration import Line, write_calibration
from flm_torchrec.planning.tables import Table
from flm_torchrec.training.runtime import Runtime, all_gather

TABLES = """
tables:
  a: {rows: 40, dim: 8, pooling: 2, features: [x, y]}
  b: {rows: 30, dim: 4, weighted: true}
"""
QUICK = ["--batch-size", "8", "--steps", "2", "--warmup", "1", "--copy-mb", "1"]


@pytest.fixture
def tables(tmp_path: Path) -> list[str]:
    (tmp_path / "tables.yaml").write_text(TABLES)
    return ["--tables", str(tmp_path / "tables.yaml"), *QUICK]


def test_one_command_gives_lines_a_table_and_a_page(
    tables: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, page, told = (tmp_path / name for name in ("lines.jsonl", "page.html", "table.md"))
    files = ["--out", str(out), "--html", str(page), "--markdown", str(told)]
    some = ["--sharding", "table_wise,data_parallel", "--kernel", "auto,fused_uvm"]
    assert main([*tables, *files, *some]) == 0
    lines = read_lines(out)
    assert [line["status"] for line in lines] == ["impossible"] * 2 + ["measured"] * 2
    for line in lines:
        assert line["versions"].keys() >= {"torch", "torchrec", "python"}
        assert line["machine"]["cores"] >= 1
        assert line["setting"]["world_size"] == 1
        assert [table["rows"] for table in line["setting"]["tables"]] == [40, 30]
    captured = capfd.readouterr()
    assert captured.out.strip() == told.read_text().strip()
    assert "kernel fused_uvm is a GPU's" in captured.out
    assert "[2/2] data_parallel dense sparse_dist fp32 batch 8 uniform" in captured.err
    assert "about 0 s left" in captured.err
    assert page.read_text().startswith("<!doctype html>")


def test_a_calibration_of_other_ranks_is_refused(
    tables: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = Line()
    file = tmp_path / "two.json"
    write_calibration(
        file, calibration(lookup=line, update=line, dense_update=line, collectives={})
    )
    assert main([*tables, "--calibration", str(file)]) == 2
    assert f"--calibration {file} was measured on 2 cpu ranks, 2 a host, the run has 1 cpu" in (
        capfd.readouterr().err
    )


def test_a_sweep_is_resumed_where_it_ended(
    tables: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lines.jsonl"
    command = [*tables, "--out", str(out), "--sharding"]
    assert main([*command, "table_wise"]) == 0
    first = out.read_text()
    assert main([*command, "row_wise"]) == 2
    assert "exists; --resume goes on with it" in capfd.readouterr().err
    out.write_text(first + '{"benchmark": "shar')  # of a job that was killed while it wrote
    assert main([*command, "table_wise,row_wise", "--resume"]) == 0
    assert out.read_text().startswith(first)
    assert [line["setting"]["point"]["sharding"] for line in read_lines(out)] == [
        "table_wise",
        "row_wise",
    ]


def test_a_point_that_ended_the_job_twice_is_not_tried_again(
    tables: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "lines.jsonl"
    command = [*tables, "--out", str(out), "--sharding", "table_wise"]
    assert main(command) == 0
    journal = Journal(out)
    assert journal.running is not None
    (line,) = read_lines(out)
    killed = {**line, "status": "failed", "reason": KILLED}
    out.write_text("")
    journal.begin(killed)
    assert json.loads(journal.running.read_text())["begun"] == 1
    assert main([*command, "--resume"]) == 0  # it was tried again
    assert [line["status"] for line in read_lines(out)] == ["measured"]
    out.write_text("")
    journal.begin(killed)
    journal.begin(killed)
    assert main([*command, "--resume"]) == 1
    (told,) = read_lines(out)
    assert (told["status"], told["reason"], key_of(told)) == ("failed", KILLED, key_of(line))
    assert not journal.running.exists()


def test_an_interrupt_is_told_in_a_line_and_blames_no_point(
    tables: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "lines.jsonl"
    begun = Journal(out).running
    assert begun is not None
    command = [sys.executable, "-m", "flm_benchmarks.sharding.run", *tables, "--out", str(out)]
    job = subprocess.Popen(
        [*command, "--steps", "1000000", "--sharding", "table_wise"],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not begun.exists():
        assert job.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    job.send_signal(signal.SIGINT)
    _, told = job.communicate(timeout=60)
    assert told.rstrip().endswith(f"flm: interrupted; --resume goes on with {out}")
    assert "Traceback" not in told
    assert job.returncode == 130
    assert not begun.exists()


def test_what_failed_is_tried_again_with_resume(tables: list[str], tmp_path: Path) -> None:
    out = tmp_path / "lines.jsonl"
    command = [*tables, "--out", str(out), "--sharding", "table_wise,row_wise"]
    assert main(command) == 0
    one, other = read_lines(out)
    failed = {**one, "status": "failed", "reason": "RuntimeError: no room", "rank": 0}
    out.write_text("".join(json.dumps(line) + "\n" for line in (failed, other)))
    page = tmp_path / "page.html"
    assert main([*command, "--resume", "--html", str(page)]) == 0
    assert [line["status"] for line in read_lines(out)] == ["failed", "measured", "measured"]
    assert "no room" not in page.read_text()


def test_the_same_tables_in_another_folder_are_the_same(tables: list[str], tmp_path: Path) -> None:
    out, moved = tmp_path / "lines.jsonl", tmp_path / "deep" / "tables.yaml"
    moved.parent.mkdir()
    moved.write_text(TABLES)
    command = [*QUICK, "--out", str(out), "--sharding", "table_wise"]
    assert main([*tables[:2], *command]) == 0
    assert main(["--tables", str(moved), *command, "--resume"]) == 0
    assert len(read_lines(out)) == 1


def test_widths_that_fused_tables_refuse_are_listed(tmp_path: Path) -> None:
    odd, out = tmp_path / "odd.yaml", tmp_path / "lines.jsonl"
    odd.write_text("tables: {a: {rows: 40, dim: 6}}")
    command = ["--tables", str(odd), *QUICK, "--out", str(out)]
    assert main([*command, "--sharding", "data_parallel,table_wise"]) == 0
    told = {line["setting"]["point"]["sharding"]: line for line in read_lines(out)}
    assert told["data_parallel"]["status"] == "measured"
    assert told["table_wise"]["status"] == "impossible"
    assert told["table_wise"]["reason"].startswith("a is 6 wide; FBGEMM's fused tables")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("tables: {a: {rows: 0, dim: 4}}", "tables.a.rows: 0 is not allowed"),
        ("tables: {a: {rows: 4, dim: 0}}", "tables.a.dim: 0 is not allowed"),
        (
            "tables: {a: {rows: 4, dim: 4, features: [x]}, b: {rows: 4, dim: 4, features: [x]}}",
            "feature 'x' is read by the tables a, b",
        ),
    ],
)
def test_wrong_tables_are_told_by_name(
    content: str, told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tables.yaml").write_text(content)
    assert main(["--tables", str(tmp_path / "tables.yaml")]) == 2
    assert told in capfd.readouterr().err


def test_wrong_presets_sizes_and_optimizers_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    for wrong, told in (
        (["--preset", "criteo"], "preset: 'criteo' is not one of criteo-small"),
        (["--optimizer", "adam"], "sparse optimizer 'adam' runs on CUDA only; on cpu choose"),
        (["--preset", "equal", "--table-gib", "-1"], "--table-gib: -1.0; allowed"),
        (["--preset", "dlrm-v2", "--table-gib", "1e-9"], "a row of each takes"),
    ):
        assert main(wrong) == 2
        assert told in capfd.readouterr().err


class Faulty(PooledModel):
    """Runs out of memory on one rank in the midst of a step, while the other waits for it."""

    rank = 0

    def forward(self, batch: SampleBatch) -> tuple[Tensor, Tensor]:
        losses, scores = super().forward(batch)
        if self.rank == 1:
            torch.empty(2**55)
        return losses, scores


SMALL = (Table(name="t", rows=20, dim=4),)


def swept(runtime: Runtime, out: str) -> list[tuple[str, str, str, int | None]]:
    def build() -> Faulty:
        model = Faulty(SMALL)
        model.rank = runtime.rank
        return model

    points = [Point(sharding=kind, batch_size=4) for kind in ("table_wise", "grid_shard")]
    sound = Work(name="sound", tables=SMALL, steps=2, warmup=1)
    faulty = Work(name="faulty", tables=SMALL, steps=2, warmup=1, build=build)
    lines = sweep(runtime, sound, points, out=Path(out) / "0.jsonl", copy_megabytes=1)
    lines += sweep(runtime, faulty, points, out=Path(out) / "1.jsonl", copy_megabytes=1)
    # The ranks are together again, also in the groups of grid tables.
    lines += sweep(runtime, sound, points, out=Path(out) / "2.jsonl", copy_megabytes=1)
    return [
        (line["setting"]["name"], line["status"], line.get("reason", ""), line.get("rank"))
        for line in lines
    ]


def test_a_rank_out_of_memory_is_recorded_and_the_sweep_goes_on(
    ranks: Ranks, tmp_path: Path
) -> None:
    first, second = ranks.run(swept, str(tmp_path))
    assert second == []
    sound = [("sound", "measured", "", None)] * 2
    assert first[:2] == first[4:] == sound
    for name, status, reason, rank in first[2:4]:
        assert (name, status, rank) == ("faulty", "failed", 1)
        assert "can't allocate memory" in reason or "size calculation overflowed" in reason


def attempted(runtime: Runtime) -> list[object]:
    together = Together(runtime)

    def fails() -> int:
        if runtime.rank == 0:
            raise ValueError("of rank 0 alone")
        return int(all_gather(torch.ones(1)).sum())

    return [
        together.attempt(lambda: int(all_gather(torch.ones(1)).sum())),
        together.attempt(fails),
        together.attempt(lambda: int(all_gather(torch.ones(1)).sum())),
    ]


def test_ranks_agree_on_a_failure_and_are_together_afterwards(ranks: Ranks) -> None:
    failure = Failure(0, "ValueError: of rank 0 alone")
    assert ranks.run(attempted) == [[2, failure, 2]] * 2


def test_alone_a_failure_is_told_too(alone: Runtime) -> None:
    assert attempted(alone) == [1, Failure(0, "ValueError: of rank 0 alone"), 1]


def test_an_index_out_of_range_leaves_the_process_alive(
    tables: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.csv").write_text("x,y,b\n1,2,3\n4,5,31\n")
    log = ["--ids", "log", "--log", str(tmp_path / "log.csv")]
    assert main([*tables, *log]) == 2
    assert "feature 'b': id 31 is no row of table 'b', which has 30 rows" in capfd.readouterr().err


def started(runtime: Runtime, path: str) -> str:
    work = Work(name="small", tables=SMALL, steps=2, warmup=1)
    try:
        sweep(runtime, work, [Point(batch_size=4)], out=Path(path), copy_megabytes=1)
    except UserError as error:
        return str(error)
    return ""


def test_a_file_that_rank_0_cannot_write_is_told_by_every_rank(
    ranks: Ranks, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for told in ranks.run(started, str(tmp_path / "file" / "lines.jsonl")):
        assert "file: File exists" in told or "Not a directory" in told
