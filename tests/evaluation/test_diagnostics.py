"""Figures of representations by hand, and collapses that are told."""

import math

import pytest
import torch

from flm_torchrec.evaluation.diagnostics import (
    alignment,
    diagnose,
    effective_rank,
    recall_at,
    uniformity,
)

EYE = torch.eye(4)


def healthy(rows: int = 40, width: int = 32) -> torch.Tensor:
    return torch.randn(rows, width)


def diagnosed(*views: torch.Tensor, present: torch.Tensor | None = None):
    """Of views named a, b, ...; the fusion is their mean."""
    stacked = torch.stack(views)
    there = torch.ones(stacked.shape[:2], dtype=torch.bool) if present is None else present
    weights = (there / there.sum(0).clamp(min=1)).T
    fused = torch.einsum("nv,vnd->nd", weights, stacked)
    return diagnose("abcd"[: len(views)], stacked, there, weights, fused)


def test_alignment_is_the_mean_squared_distance_of_rows_of_unit_length():
    one = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0], [1.0, 1.0]])
    other = torch.tensor([[5.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [2.0, 2.0]])
    # alike 0, orthogonal 2, opposite 4, alike 0
    assert alignment(one, other) == pytest.approx(6 / 4)


def test_uniformity_is_the_log_of_the_mean_over_pairs():
    # One pair is alike, two are orthogonal: a squared distance of 2.
    rows = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 0.5]])
    assert uniformity(rows) == pytest.approx(math.log((1 + 2 * math.exp(-4)) / 3), abs=1e-6)
    assert uniformity(torch.ones(5, 3)) == 0
    assert uniformity(EYE) == pytest.approx(-4)


def test_the_effective_rank_counts_directions_that_are_used_alike():
    assert effective_rank(EYE) == pytest.approx(4)
    assert effective_rank(torch.ones(5, 3)) == pytest.approx(1)
    # p = (3/4, 1/4)
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0, 0.0]))) == pytest.approx(expected)
    assert effective_rank(torch.zeros(5, 3)) == 0


def test_an_item_is_found_among_the_nearest_rows_of_its_other_view():
    # By cosine: the first two swap places, the others find themselves at once.
    query = EYE[[1, 0, 2, 3]] + 0.1 * EYE
    assert recall_at(1, query, EYE) == 0.5
    assert recall_at(2, query, EYE) == 1.0


def test_among_equally_near_rows_it_is_found_by_chance():
    assert recall_at(1, EYE, torch.ones(4, 4)) == pytest.approx(1 / 4)
    assert recall_at(3, EYE, torch.ones(4, 4)) == pytest.approx(3 / 4)
    assert recall_at(9, EYE, torch.ones(4, 4)) == 1


def test_every_view_has_its_figures_and_cross_view_ones_are_of_every_two():
    features = healthy()
    found = diagnosed(features, features + 0.01 * healthy(), healthy())
    spread = {"uniformity", "effective_rank"}
    assert {view: set(figures) for view, figures in found.figures.items()} == {
        "a": spread | {"fusion_weight"},
        "b": spread | {"alignment", "recall@10", "fusion_weight"},
        "c": spread | {"alignment", "recall@10", "alignment/b", "recall@10/b", "fusion_weight"},
        "fused": spread,
    }
    assert found.figures["b"]["recall@10"] == 1
    assert found.figures["b"]["alignment"] < 0.01
    assert found.figures["c"]["recall@10"] < 0.7
    assert found.figures["c"]["alignment"] == pytest.approx(2, abs=0.3)
    assert found.figures["a"]["fusion_weight"] == pytest.approx(1 / 3)


def test_rows_without_a_view_do_not_count():
    features, text = healthy(), healthy()
    present = torch.ones(2, 40, dtype=torch.bool)
    present[1, 20:] = False
    whole = diagnosed(features[:20], text[:20]).figures
    text[20:] = 0  # would be alike
    found = diagnosed(features, text, present=present).figures
    assert {**found["b"], "fusion_weight": 0} == {**whole["b"], "fusion_weight": 0}
    assert found["b"]["fusion_weight"] == pytest.approx(1 / 4)


def test_a_view_that_no_item_has_leaves_its_figures_out_and_is_no_collapse():
    present = torch.ones(2, 40, dtype=torch.bool)
    present[1] = False
    found = diagnosed(healthy(), torch.zeros(40, 32), present=present)
    assert found.figures["b"] == {"fusion_weight": 0.0}
    assert found.collapses == []


def test_one_item_alone_has_no_spread():
    found = diagnosed(healthy(1), healthy(1))
    assert set(found.figures) == {"a", "b"}
    assert found.collapses == []


def test_a_collapsed_view_is_named_with_the_value_and_the_bound():
    direction = torch.randn(32)
    line = diagnosed(healthy(), torch.randn(40, 1) * direction)
    assert line.collapses == [
        "collapse of view b: effective rank 1 is below 1.6 (5% of 32)",
    ]
    point = diagnosed(healthy(), direction + 0.01 * healthy())
    value = point.figures["b"]["uniformity"]
    assert point.collapses[-1] == (
        f"collapse of view b: uniformity {value:.3g} is above -0.05 (0: all rows are alike)"
    )


def test_healthy_views_are_told_nothing_of():
    assert diagnosed(healthy(), healthy(), healthy()).collapses == []
    assert diagnosed(healthy(400, 64)).collapses == []
