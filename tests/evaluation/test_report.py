"""The report: valid JSON, one self-contained page, a section for each key that is there."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from flm_torchrec.errors import UserError
from flm_torchrec.evaluation.charts import bars, thinned
from flm_torchrec.evaluation.item_map import ITEM_MAP, item_map, write_item_map
from flm_torchrec.evaluation.report import read_log, write_report

VOID = {"meta"}
REPORT = {
    "versions": {"torch": "2.13.0", "python": "3.11"},
    "machine": {"cores": 2},
    "world_size": 2,
    "data": {"users": 943, "items": 1682, "interactions": 100_000},
    "seconds": {"pretrain": 241.25, "total": 390.0},
    "tasks": {"rank": {"first": 7.4, "last": 5.2}},
    "test": {"ndcg@10": 0.1234567891, "coverage@10": 0.4, "auc_like": 0.79, "rmse_rating": 1.03},
    "baselines": {
        "popularity": {"ndcg@10": 0.0449, "coverage@10": 0.05},
        "ease": {"ndcg@10": 0.0711, "coverage@10": 0.6},
        "bias": {"auc_like": 0.785, "rmse_rating": 1.02},
    },
    "plan": [{"table": "item_id", "sharding": "row_wise", "ranks": [0, 1], "rows": 1683}],
    "checks": [{"name": "ndcg@10", "passed": True, "value": 0.1234, "bound": 0.1}],
    "masked_lm": {"accuracy": 0.41},
    "diagnostics": {
        "features": {"uniformity": -3.2, "effective_rank": 45.6, "fusion_weight": 0.6},
        "title": {"uniformity": -0.01, "effective_rank": 2.1, "recall@10": 0.98},
    },
}


class Page(HTMLParser):
    """Headings, the text, and whether every tag is closed in its place."""

    def __init__(self, html):
        super().__init__()
        self.open, self.headings, self.words, self.tags, self.bold = [], [], [], set(), []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)
            self.headings += [data] if self.open[-1] == "h2" else []
            self.bold += [data] if self.open[-1] == "b" else []


def read_page(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def write_log(file, *lines):
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_floats_are_rounded_and_nan_is_null(tmp_path):
    report = {
        "test": {"auc_like": float("nan"), "ndcg@10": np.float32(0.25), "hr@10": 0.123456789},
        "count": np.int64(3),
        "passed": np.bool_(True),
        "folder": tmp_path,
        "ratio": float("inf"),
    }
    write_report(tmp_path, report)
    assert json.loads((tmp_path / "report.json").read_text()) == {
        "test": {"auc_like": None, "ndcg@10": 0.25, "hr@10": 0.123457},
        "count": 3,
        "passed": True,
        "folder": str(tmp_path),
        "ratio": None,
    }


def test_every_key_has_a_section(tmp_path):
    there = torch.ones(3, dtype=torch.bool)
    made = item_map({"title": (torch.eye(3), there)}, "abc", [[]] * 3, grouped_by="")
    write_item_map(tmp_path / ITEM_MAP, made)
    write_log(tmp_path / "log.jsonl", {"step": 1, "loss/rank": 7.0}, {"step": 2, "loss/rank": 6.0})
    write_report(tmp_path, REPORT)
    assert read_page(tmp_path).headings == [
        "Test quality against the baselines",
        "Checks",
        "Losses",
        "Representation of the items",
        "Map of the items by view",
        "Curves",
        "Where each table lies",
        "Masked lm",
        "Data",
        "Seconds",
        "Machine",
        "Versions",
    ]


@pytest.mark.parametrize("left_out", [*REPORT, None])
def test_a_section_whose_key_is_absent_is_left_out(tmp_path, left_out):
    write_report(tmp_path, {key: value for key, value in REPORT.items() if key == left_out})
    one = read_page(tmp_path).headings
    write_report(tmp_path, {key: value for key, value in REPORT.items() if key != left_out})
    rest = read_page(tmp_path).headings
    shared = {"Test quality against the baselines"} if left_out in ("test", "baselines") else set()
    assert set(one) & set(rest) == shared
    assert len(one) == (0 if left_out in (None, "world_size") else 1)


def test_the_best_of_each_metric_is_bold_whichever_way_is_better(tmp_path):
    write_report(tmp_path, REPORT)
    # Ours ranks and tells likes best, the bias model rates best; coverage is not judged.
    assert read_page(tmp_path).bold == ["0.1235", "0.7900", "1.020"]


def test_every_metric_that_is_judged_has_bars(tmp_path):
    write_report(tmp_path, REPORT)
    captions = re.findall(
        r"<figcaption>(\S+) <span>(\S+) is better", (tmp_path / "report.html").read_text()
    )
    assert captions == [("ndcg@10", "higher"), ("auc_like", "higher"), ("rmse_rating", "lower")]
    both = {"test": {"mae_x": 1.0, "recall@5": 0.1}, "baselines": {"a": {"mae_x": 2.0}}}
    write_report(tmp_path, both)
    assert "mae_x <span>lower is better" in (tmp_path / "report.html").read_text()
    assert "recall@5 <span>" not in (tmp_path / "report.html").read_text()


def test_cosines_of_gradients_and_figures_of_views_have_curves(tmp_path):
    write_log(tmp_path / "log.jsonl", {"step": 1, "grad_cosine/rank/align": 0.1, "view/a/b": 1.0})
    write_report(tmp_path, {})
    words = " ".join(read_page(tmp_path).words)
    assert "grad_cosine/rank/align" in words
    assert "view/a/b" in words


def test_an_entry_without_anything_has_no_section(tmp_path):
    write_report(tmp_path, {"mlm": {}, "data": {}})
    assert read_page(tmp_path).headings == []


def test_a_failed_check_is_told_in_words(tmp_path):
    checks = [{"name": "loss", "passed": False, "value": float("nan"), "bound": 2.5}]
    write_report(tmp_path, {"checks": checks})
    words = " ".join(read_page(tmp_path).words)
    assert "0 of 1" in words
    assert "FAILED" in words


def test_text_is_escaped_everywhere(tmp_path):
    evil = "<script>alert('&\"')</script>"
    write_log(tmp_path / "log.jsonl", {"step": 1, f"loss/{evil}": 1.0})
    write_log(tmp_path / "a<b" / "log.jsonl", {"step": 1, "loss/rank": 1.0})
    write_report(
        tmp_path,
        {
            "versions": {evil: evil},
            "tasks": {evil: {"first": 1.0, "last": 0.5}},
            "test": {"ndcg@10": 0.1, f"auc_{evil}": 0.5},
            "baselines": {evil: {"ndcg@10": 0.2, f"auc_{evil}": 0.4}},
            "plan": [{evil: [evil]}],
            "checks": [{"name": evil, "passed": True, "value": evil, "bound": evil}],
            evil: evil,
        },
    )
    page = read_page(tmp_path)
    assert "script" not in page.tags
    assert "a<b" in "".join(page.words)


def test_the_page_needs_no_other_file_and_follows_the_colour_scheme(tmp_path):
    write_report(tmp_path, REPORT)
    html = (tmp_path / "report.html").read_text()
    assert not re.search(r"(src|href)=|url\(|@import|https?://", html)
    assert "prefers-color-scheme: dark" in html


def test_runs_just_below_the_folder_have_their_curves_too(tmp_path):
    write_log(tmp_path / "pretrain" / "log.jsonl", {"step": 1, "loss/mlm": 7.0})
    write_log(tmp_path / "finetune" / "log.jsonl", {"step": 1, "loss/like": 0.7})
    write_report(tmp_path, {})
    words = "".join(read_page(tmp_path).words)
    assert words.index("finetune") < words.index("loss/like") < words.index("pretrain")
    assert "loss/mlm" in words


def test_the_later_line_of_a_step_counts_and_missing_values_are_skipped(tmp_path):
    file = tmp_path / "log.jsonl"
    write_log(
        file,
        {"step": 2, "loss/rank": 6.0, "note": "text"},
        {"step": 1, "loss/rank": 9.0},
        {"step": 3, "loss/rank": float("nan"), "loss/mlm": None},
        {"step": 1, "loss/rank": 7.0},
    )
    assert read_log(file) == {"loss/rank": [(1, 7.0), (2, 6.0)]}


def test_a_torn_log_is_named_by_file_and_line(tmp_path):
    file = tmp_path / "log.jsonl"
    file.write_text('{"step": 1, "loss/rank": 7.0}\n{"step": 2, "lo')
    with pytest.raises(UserError, match=r"log\.jsonl, line 2: .* is not JSON"):
        read_log(file)


def test_a_long_curve_is_thinned_by_means():
    points = thinned([(step, float(step % 2)) for step in range(10_000)])
    assert len(points) <= 300
    assert {value for _, value in points} == {0.5}


def test_bars_that_would_leave_no_room_for_the_others_are_cut():
    values = [("a", 2.0), ("b", 4.0), ("c", 800.0)]
    drawn = bars("some", "", values, most=8.0)
    widths = [float(width) for width in re.findall(r'width="([\d.]+)"', drawn)]
    assert widths == pytest.approx([42.5, 85, 170])
    assert drawn.count('class="break"') == 1
    assert ">800.0<" in drawn
    assert "break" not in bars("some", "", values)


def test_a_report_that_is_read_and_written_again_stays_the_same(tmp_path):
    write_report(tmp_path, REPORT | {"test": {"auc_like": float("nan"), "ndcg@10": 0.1}})
    files = [tmp_path / "report.json", tmp_path / "report.html"]
    before = [file.read_bytes() for file in files]
    write_report(tmp_path, json.loads(before[0]))
    assert [file.read_bytes() for file in files] == before


def test_what_json_cannot_hold_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(TypeError, match="object can't be written"):
        write_report(tmp_path, {"data": object()})
    assert list(tmp_path.iterdir()) == []
