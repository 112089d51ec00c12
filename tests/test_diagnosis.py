"""The representation of a run: figures of every view, collapses, and the map of its items."""

from math import isfinite
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import tiny
import tiny_model
import torch
from torch import nn
from two_ranks.test_flm import config as config_of
from two_ranks.trained import assembled

from flm_torchrec.assemble import Assembly
from flm_torchrec.config import RunConfig
from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.prepare import prepare
from flm_torchrec.diagnosis import diagnosis, map_of_items, words_of_items
from flm_torchrec.evaluation.diagnostics import Diagnostics
from flm_torchrec.training.runtime import Runtime


def run_of(dataset: Dataset, **more: Any) -> Assembly:
    """What a diagnosis reads of a run, without sharding."""
    made = tiny_model.parts(tiny_model.config(**more), dataset)
    run: Any = SimpleNamespace(
        config=made.config,
        dataset=dataset,
        model=made.model,
        collator=made.collator,
        runtime=SimpleNamespace(device=torch.device("cpu")),
    )
    return cast("Assembly", run)


@pytest.fixture
def run(encoder_folder) -> Assembly:
    return run_of(tiny.dataset(), text={"encoder": str(encoder_folder)})


def collapse_titles(run: Assembly) -> None:
    """All titles become one row."""
    view = run.model.flm.text_view
    assert view is not None
    (projection,) = view.projections
    nn.init.zeros_(projection.get_parameter("weight"))
    nn.init.ones_(projection.get_parameter("bias"))


def test_every_view_of_a_run_has_finite_figures(run):
    found = diagnosis(run)
    assert set(found.figures) == {"features", "title", "fused"}
    assert all(isfinite(value) for own in found.figures.values() for value in own.values())
    assert found.collapses == []
    # Item 7 has no text; gates start equal.
    assert found.figures["title"]["fusion_weight"] == pytest.approx(7 / 16)
    assert found.figures["features"]["fusion_weight"] == pytest.approx(9 / 16)


def test_a_collapsed_view_is_told_and_a_healthy_one_is_not(run):
    collapse_titles(run)
    (told,) = diagnosis(run).collapses
    assert told.startswith("collapse of view title: uniformity ")


def test_a_diagnosis_leaves_the_model_as_it_was(run):
    run.model.train()
    diagnosis(run)
    assert run.model.training
    assert all(parameter.grad is None for parameter in run.model.parameters())


def diagnosed_at_the_start(runtime: Runtime, config: RunConfig, start: Path) -> Diagnostics | None:
    return diagnosis(assembled(runtime, config, start))


def test_two_ranks_diagnose_what_one_does(alone, ranks, ml100k, encoder_folder, tmp_path):
    config = config_of(ml100k, encoder_folder)
    expected = diagnosed_at_the_start(alone, config, tmp_path)
    first, second = ranks.run(diagnosed_at_the_start, config, tmp_path)
    assert first == second
    assert first.figures["features"] == pytest.approx(expected.figures["features"])


def test_without_texts_there_are_features_alone():
    found = diagnosis(run_of(tiny.dataset()))
    assert set(found.figures["features"]) == {"uniformity", "effective_rank", "fusion_weight"}
    assert set(found.figures) == {"features", "fused"}


def test_the_map_has_every_item_but_the_unknown_one_on_each_view(run, tmp_path):
    run.config = run.config.model_copy(
        update={"data": run.config.data.model_copy(update={"path": str(tmp_path)})}
    )
    found = map_of_items(run)
    assert found.titles == [*tiny.TITLES[:6], "i7", "old train"]
    places = {view: sum(p is not None for p in points) for view, points in found.points.items()}
    assert places == {"features": 8, "title": 7, "fused": 8}
    assert (found.groups, found.grouped_by) == ([], "")


def test_the_words_of_items_are_those_of_their_first_feature_that_has_some(ml100k):
    dataset = prepare(ml100k)
    rows = np.array([1, 2, 1682])
    name, words = words_of_items(dataset, ml100k / "prepared", rows)
    assert name == "genres"
    assert words[0] == ["Animation", "Children's", "Comedy"]  # Toy Story
    titles = dataset.items.titles
    assert all(word in titles[row] for row, own in zip(rows, words, strict=True) for word in own)
