from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from flm_benchmarks.sharding.growth import growth, growths
from flm_benchmarks.sharding.lines import read_lines
from flm_benchmarks.sharding.markdown import as_markdown
from flm_benchmarks.sharding.plot import Place, plot
from flm_benchmarks.sharding.report import main
from flm_benchmarks.sharding.sections import by_plan, without_figures
from flm_benchmarks.sharding.swaps import swapped, swaps
from sharding_lines import MACHINE, line, write

from flm_torchrec.errors import UserError

LINES = [
    line("data_parallel", kernel="dense", pipeline="base", seconds=0.04),
    line("table_wise", pipeline="base", seconds=0.02),
    line("table_wise", seconds=0.01),
    line("auto", seconds=0.01),
    line("row_wise", status="failed"),
]


class Balanced(HTMLParser):
    """Fails where a tag is closed that is not the last one opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_of_several_jobs_has_every_chart_with_its_numbers(tmp_path: Path) -> None:
    two = write(tmp_path / "two.jsonl", LINES)
    alone = {**MACHINE, "threads_per_rank": 2}
    one = write(
        tmp_path / "one.jsonl", [line("table_wise", world_size=1, seconds=0.015, machine=alone)]
    )
    assert main([str(one), str(two), "--out", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    reader = Balanced()
    reader.feed(page)
    assert reader.open == []
    for head in (
        "Step time by plan",
        "What each optimisation adds",
        "One option for another",
        "Scaling by world size",
        "Growth",
        "Predicted against measured",
        "Roofline",
        "All figures",
        "Not measured",
        "Machine and versions",
        "Tables",
    ):
        assert f"<h2>{head}" in page
    assert "2.00x" in page  # fused tables against dense ones
    assert "4.00x" in page  # and all against the first
    assert "1.00x" in page  # what adds nothing is told too
    assert "RuntimeError: out of memory" in page
    assert "failed on rank 1" in page
    assert "copying memory reaches 1.00 GB/s" in page
    assert "median relative error 50%" in page
    assert "75%" in page  # of linear, with as many threads in all
    assert "src=" not in page  # self-contained
    assert "href=" not in page


def test_an_option_is_compared_over_lines_that_differ_in_it_alone() -> None:
    lines = [
        line("table_wise", pipeline="base", seconds=0.02),
        line("table_wise", seconds=0.01),
        line("row_wise", pipeline="base", seconds=0.03),
        line("row_wise", seconds=0.06),
        line("row_wise", pipeline="base", seconds=0.03, world_size=1),  # has no other
        line("auto", seconds=0.01),  # nor has this
        line("grid_shard", pipeline="base", status="failed"),
    ]
    for each in lines[:4]:
        each["setting"]["point"]["dtype"] = "fp16"  # never without the usual one
    (swap,) = swaps(lines)
    assert (swap.what, swap.value, swap.ranks) == ("pipeline", "sparse_dist", "2 ranks")
    assert swap.ratios == pytest.approx([0.5, 2.0])
    assert "0.50 to 2.00x" in swapped(lines)
    assert "No two lines differ" in swapped(lines[4:])


def test_the_last_of_equal_lines_counts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "a.jsonl", [line(seconds=0.5), line(seconds=0.01)])
    assert main([str(file)]) == 0
    assert capfd.readouterr().out.count("table_wise fused sparse_dist") == 1


def test_the_page_of_failures_alone_tells_them(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [line(status="failed")])
    assert main([str(file), "--out", str(tmp_path / "page.html")]) == 0
    assert "out of memory" in (tmp_path / "page.html").read_text()


def test_markdown_has_a_row_a_line_and_each_reason_once() -> None:
    told = as_markdown([*LINES, line("grid_shard", status="failed")])
    assert told.count("| small | 2 |") == 4
    assert told.count("RuntimeError: out of memory") == 1
    assert "| failed on rank 1 | 2 |" in told
    assert "busy" not in told
    assert "Beware: the machine was busy" in as_markdown([{**line(), "load": 4.0}])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "line 1: is not JSON"),
        ('{"benchmark": "dlrm"}', "line 1: is no line of the benchmark 'sharding'"),
        ('{"benchmark": "sharding", "schema": 0}', "line 1: schema 0; this version reads 3"),
    ],
)
def test_a_line_of_another_kind_is_named(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(UserError, match=told):
        read_lines(tmp_path / "a.jsonl")


def test_an_empty_file_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(write(tmp_path / "a.jsonl", []))]) == 2
    assert "hold no line" in capfd.readouterr().err


def test_a_plot_of_one_point_stands_within_its_frame() -> None:
    drawn = plot("one", "", {"a": [Place(1, 5, "it")]}, axes=("x", "y"))
    assert 'cx="44.0"' in drawn  # at the left
    assert "nan" not in drawn
    assert "legend" not in drawn  # a single series needs no name


def test_more_series_than_colours_are_told_apart() -> None:
    series = {f"s{place}": [Place(1, 5, "a"), Place(2, 99_960 + place, "b")] for place in range(8)}
    drawn = plot("many", "", series, axes=("x", "y"), is_joined=True)
    assert ">s0<" in drawn
    assert ">s6 (ringed)<" in drawn
    assert drawn.count("stroke-dasharray") == 2  # as their lines are
    assert ">100k<" in drawn  # the end of an axis, in three digits


def test_a_long_table_is_folded_and_tells_a_case_once() -> None:
    lines = [line("table_wise", seconds=0.01 + number / 1e4) for number in range(50)]
    for number, each in enumerate(lines):
        each["setting"]["seed"] = number
    drawn = by_plan(lines)
    assert "<summary>table of 50 rows</summary>" in drawn
    assert drawn.count('<td class="wide">small, fp32') == 1
    assert "<details>" not in by_plan(lines[:40])
    assert "<svg" in by_plan(lines[:2])
    assert "<svg" not in by_plan(lines[:1])  # there is nothing to compare


def test_all_points_of_a_reason_can_be_unfolded() -> None:
    lines = [line(kind, status="failed") for kind in ("row_wise", "grid_shard", "auto")]
    drawn = without_figures(lines)
    assert "row_wise fused sparse_dist fp32" in drawn
    assert "and 2 more</summary>" in drawn
    assert "auto fused sparse_dist fp32" in drawn


def grown(*, batch: int = 64, rows: int | None = None, ms: float) -> dict[str, Any]:
    """A line of another batch or of other rows."""
    made = line("table_wise", seconds=ms / 1e3)
    made["setting"]["point"] |= {"batch_size": batch, "rows": rows}
    return made


def test_growth_over_the_batch_is_a_fixed_part_and_one_a_sample() -> None:
    lines = [grown(batch=batch, rows=1000, ms=2 + batch / 100) for batch in (64, 256, 1024)]
    lines.append(grown(batch=64, rows=10, ms=1))  # alone: no growth
    (found,) = growths(lines)
    assert found.rows == 1000
    assert found.fixed_ms == pytest.approx(2, rel=0.02)
    assert found.sample_us == pytest.approx(10, rel=0.02)
    assert found.lookup_ns == pytest.approx(1000, rel=0.02)  # ten lookups a sample


def test_growth_is_drawn_over_batch_and_rows() -> None:
    lines = [
        grown(batch=batch, rows=rows, ms=batch * rows) for batch in (64, 128) for rows in (1, 10)
    ]
    page = growth(lines)
    assert "Step time by batch" in page
    assert "Step time by rows of each table" in page
    assert "small, table_wise fused sparse_dist, fp32, batch 64, uniform ids, 2 ranks" in page
    assert "No two lines differ" in growth(lines[:1])


def test_growth_on_two_machines_is_drawn_for_both() -> None:
    lines = [grown(batch=batch, ms=batch) for batch in (64, 128, 256)]
    others = [{**each, "machine": {**each["machine"], "processor": "another"}} for each in lines]
    (one, other) = growths([*lines, *others])
    assert other.name == f"{one.name} (2)"
    assert other.name in growth([*lines, *others])
