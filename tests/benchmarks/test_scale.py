"""The measurements of speed in miniature: that they run and what they count."""

import json
from pathlib import Path

import pytest
import torch
from flm_benchmarks import fused_tables, handwritten


def test_traffic_is_a_read_a_lookup_and_a_read_and_a_write_a_distinct_row(monkeypatch) -> None:
    monkeypatch.setattr(fused_tables, "SAMPLES", 2)
    monkeypatch.setattr(fused_tables, "POOLING", 2)
    ids = torch.tensor([[1, 1, 1, 1], [1, 2, 1, 2], [1, 2, 3, 4], [0, 0, 0, 5]])
    rows = 16 + 2 * (1 + 2 + 4 + 2)
    assert fused_tables.traffic([ids]) == pytest.approx(4 * fused_tables.DIM * rows)


def test_fused_and_plain_tables_take_turns(monkeypatch) -> None:
    monkeypatch.setattr(fused_tables, "SAMPLES", 16)
    found = fused_tables.measure(rows=1_000, repeats=1)
    for kernel in found["fused"].values():
        assert kernel["ratio"] == pytest.approx(found["plain_ms"] / kernel["ms"])
        assert kernel["share_of_copy"] > 0


def test_the_loop_by_hand_and_ours_take_turns(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(handwritten, "ROWS", 1_000)
    monkeypatch.setattr(handwritten, "SAMPLES", 32)
    out = tmp_path / "ratio.json"
    assert handwritten.main(["--pairs", "2", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["world_size"] == 1
    assert found["pairs"] == 2
    assert found["ratio_quartiles"][0] <= found["ratio"] <= found["ratio_quartiles"][1]
