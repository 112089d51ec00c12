"""The sections on the representation: what stands in the table, the bars and the maps."""

import re

import torch

from flm_torchrec.evaluation.item_map import item_map
from flm_torchrec.evaluation.representation import diagnostics_section, map_section

FIGURES = {
    "features": {"uniformity": -3.2, "effective_rank": 45.6, "fusion_weight": 0.6},
    "title": {"uniformity": -0.01, "effective_rank": 2.1, "recall@10": 0.98},
}


def mapped(*titles, groups=("drama", "comedy")):
    return item_map(
        {"features": (torch.randn(len(titles), 4), torch.ones(len(titles), dtype=torch.bool))},
        titles,
        [[group] for group in groups] + [[]] * (len(titles) - len(groups)),
        grouped_by="genre",
    )


def words(html):
    return re.sub(r"<[^>]*>", " ", html).split()


def test_figures_of_the_views_stand_in_a_table_and_fusion_weights_as_bars():
    html = diagnostics_section(FIGURES, [])
    rows = [words(row)[:3] for row in re.findall("<tr>.*?</tr>", html)]
    assert rows == [
        ["features", "title"],
        ["effective_rank", "45.60", "2.100"],
        ["uniformity", "-3.200", "-0.0100"],
        ["recall@10", "&ndash;", "0.9800"],
        ["fusion_weight", "0.6000", "&ndash;"],
    ]
    assert html.count('<rect class="ours"') == 1
    assert "collapse" not in html


def test_a_collapse_is_told_above_the_table():
    told = "collapse of view title: effective rank 2.1 is below 3.2 (5% of 64)"
    html = diagnostics_section(FIGURES, [told])
    assert html.index(told) < html.index("<table>")


def test_items_have_a_dot_with_title_and_group_in_the_colour_of_the_group():
    html = map_section(mapped("Heat", "Babe", "<b>"))
    dots = re.findall(r'<circle class="(\S+)" cx=[^>]*r="3"><title>(.*?)</title>', html)
    assert dots == [  # the more frequent group first, then by name; what has none is drawn first
        ("rest", "&lt;b&gt;"),
        ("group-1", "Heat \N{MIDDLE DOT} drama"),
        ("group-0", "Babe \N{MIDDLE DOT} comedy"),
    ]
    legend = re.findall('<p class="legend">.*?</p>', html)
    assert [words(line) for line in legend] == [["genre", "comedy", "drama", "other"]]


def test_without_groups_the_map_has_no_legend():
    html = map_section(mapped("Heat", "Babe", groups=()))
    assert "legend" not in html
    assert html.count('<circle class="ours"') == 2


def test_all_dots_lie_in_the_figure():
    html = map_section(mapped(*["x"] * 200))
    across = [float(x) for x in re.findall(r'cx="(\S+)" cy="\S+" r="3"', html)]
    down = [float(y) for y in re.findall(r'cy="(\S+)" r="3"', html)]
    assert len(across) == 200
    assert 8 <= min(across) < max(across) <= 312
    assert 8 <= min(down) < max(down) <= 252


def test_the_largest_maps_are_small():
    there = torch.ones(600, dtype=torch.bool)
    views = {f"view {number}": (torch.randn(600, 8), there) for number in range(5)}
    made = item_map(views, ["w" * 60] * 600, [["x" * 20]] * 600, grouped_by="genre")
    assert len(map_section(made)) < 700_000
