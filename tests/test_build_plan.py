"""What is asked of tables where a model has none."""

from typing import Any

import pytest
from torch import nn

from flm_torchrec.build_plan import check_tables_are_there
from flm_torchrec.config import RunConfig
from flm_torchrec.planning.request import meta_collection
from flm_torchrec.planning.tables import Table

CORPUS_ALONE = {
    "data": {"path": "x"},
    "views": {"text": {"encoder": "x"}},
    "tasks": {"mlm": {}},
}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": {"sparse": {"dtype": "fp16"}}}, "train.sparse.dtype: fp16 has no effect"),
        ({"train": {"sparse": {"communication": "bf16"}}}, "allowed: fp32"),
        ({"train": {"allow_unpipelined": True}}, "train.allow_unpipelined: True .* allowed: false"),
        ({"calibration": "c.json"}, "calibration: c.json .* allowed: null"),
    ],
)
def test_what_is_asked_of_tables_needs_one(changes: dict[str, Any], told: str) -> None:
    steps = {"steps": 1, **changes.get("train", {})}
    config = RunConfig.model_validate(CORPUS_ALONE | changes | {"train": steps})
    with pytest.raises(ValueError, match=told):
        check_tables_are_there(config, nn.Linear(1, 1))
    check_tables_are_there(config, meta_collection([Table(name="t", rows=1, dim=4)]))


def test_a_model_without_tables_trains_as_usual() -> None:
    config = RunConfig.model_validate(CORPUS_ALONE | {"train": {"steps": 1}})
    check_tables_are_there(config, nn.Linear(1, 1))
