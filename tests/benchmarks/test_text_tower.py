"""The measurements of the text tower in miniature: what they count, not how fast it is."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from flm_benchmarks import text_tower
from flm_benchmarks.sharding.memory import peak_bytes


def test_each_text_of_a_batch_is_counted_by_edge_and_history_entry_and_once(ml100k: Path) -> None:
    found = text_tower.once_a_batch(ml100k, repeats=1)
    # 64 users of up to 50 events: an edge each, and as many history entries.
    assert 64 * 50 < found["texts_each"] <= 2 * 64 * 50
    assert 500 < found["texts_once"] < 1682
    assert found["texts_ratio"] == pytest.approx(found["texts_each"] / found["texts_once"])


def test_texts_of_alike_lengths_are_encoded_as_those_that_are_padded(ml100k: Path) -> None:
    found = text_tower.by_length(ml100k, texts=128, repeats=1)
    assert found["texts"] == 128
    assert found["tokens_mean"] < found["tokens_most"]
    rates = found["texts_per_s_by_length"] / found["texts_per_s_padded"]
    assert found["ratio"] == pytest.approx(rates)


def test_a_frozen_encoder_and_one_that_trains_take_steps(ml100k: Path, monkeypatch) -> None:
    monkeypatch.setattr(text_tower, "USERS", 2)
    monkeypatch.setattr(text_tower, "WINDOW", 4)
    found = text_tower.frozen_against_full(ml100k, steps=1)
    assert 1 < found["texts_a_step"] <= 2 * 2 * 4
    rates = found["samples_per_s_frozen"] / found["samples_per_s_full"]
    assert found["ratio"] == pytest.approx(rates)


def test_memory_of_steps_is_the_processs_own(ml100k: Path) -> None:
    torch.ones(2**27)  # 512 MiB, gone before the steps
    before = peak_bytes(torch.device("cpu")) / 2**20
    found = text_tower.memory_of_steps(ml100k, rows=4, micro_batch=2, steps=1)
    assert 0 < found["before_mib"] <= found["peak_mib"]
    assert found["before_mib"] < before - 100
    assert found["seconds"] > 0


def test_steps_that_are_timed_share_out_ranks(monkeypatch) -> None:
    done: list[int] = []

    def pipeline(*_: Any) -> SimpleNamespace:
        def progress(source: Iterator[Any]) -> None:
            next(source)

        return SimpleNamespace(progress=progress)

    monkeypatch.setattr(text_tower, "train_pipeline", pipeline)
    assembly: Any = SimpleNamespace(
        dmp=None,
        optimizer=None,
        sampler=None,
        runtime=SimpleNamespace(device=None),
        collator=SimpleNamespace(step=lambda sampler, step: step),
        allocate_ranks=done.append,
    )
    assert len(text_tower.step_seconds(assembly, 3)) == 3
    assert done == [1, 2, 3, 4]


def test_precisions_take_turns(monkeypatch) -> None:
    monkeypatch.setattr(text_tower, "TITLES", {4: False, 2: True})
    found = text_tower.in_bf16(repeats=1, compiled=False)
    assert [found[name]["texts"] for name in ("forward", "forward_and_backward")] == [4, 2]
    for name in ("forward", "forward_and_backward"):
        seconds = found[name]["seconds"]
        assert found[name]["ratio"] == pytest.approx(
            {"fp32": 1, "bf16": seconds["fp32"] / seconds["bf16"]}
        )
