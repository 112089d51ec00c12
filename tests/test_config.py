from pathlib import Path
from typing import Any

import pytest

from flm_torchrec.config import RunConfig
from flm_torchrec.config_data import DataConfig
from flm_torchrec.errors import UserError
from flm_torchrec.typed_yaml import load_yaml

RUN = "data: {path: x}\ntasks: {rank: {}}\ntrain: {steps: 3}\n"


def yaml(folder: Path, text: str, *overrides: str) -> RunConfig:
    file = folder / "run.yaml"
    file.write_text(text)
    return load_yaml(file, RunConfig, overrides)


def test_a_config_of_a_few_lines_gets_defaults(tmp_path):
    config = yaml(tmp_path, RUN)
    assert config.tasks.rank is not None
    assert (config.tasks.align, config.tasks.mlm, config.tasks.heads) == (None, None, None)
    assert config.views.text is None
    assert config.sharding == {"default": "auto"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tasks.mlm={}", r"tasks\.mlm needs views\.text"),
        ("tasks={}", r"no task is on"),
        ("tasks={order: {}, fuse: {}}", r"tasks\.fuse teaches what tasks\.rank learns"),
        ("tasks.order={by: label}", r"by: label needs a label"),
        ("tasks.order={label: like}", r"by: sampled reads no label: like"),
        ("views.width=6", r"width: 6 must be a multiple of 4"),
        ("views.history.heads=3", r"history\.heads: 3"),
        ("views.text={encoder: x, mode: full}", r"mode: full needs rows above 0, got rows: 0"),
        ("views.text={encoder: x, rows: 2}", r"mode: frozen needs rows: 0, got rows: 2"),
        ("views.text={encoder: x, micro_batch: 2}", r"micro_batch has no effect with mode: frozen"),
        ("views.text={encoder: x, mode: full, rows: 2, last: 2}", r"last has no effect with mode"),
        ("views.text={encoder: x, mode: adapter, rows: 2, rank: 4}", r"rank has no effect with"),
        ("views.text={encoder: x, precision: fp16}", r"views\.text\.precision"),
        ("data.reverse=1.5", r"data\.reverse"),
        ("data.window=-1", r"data\.window"),
        ("data.rows=0", r"data\.rows"),
        ("data.workers=-1", r"data\.workers"),
        ("data.negatives=0", r"data\.negatives"),
        ("data.negative_source=uniform", r"data\.negative_source.*popular.*in_batch.*mixed"),
        ("tasks.heads={hidden: 0, dropout: 0.5}", r"dropout has no effect with hidden: 0"),
        ("tasks.heads={cross: dlrm}", r"tasks\.heads\.cross.*none.*fm.*dcn"),
        ("data.negatives=some", r"data\.negatives"),
        ("train.seed=-1", r"train\.seed"),
        ("train.sparse.dtype=int8", r"train\.sparse\.dtype.*fp32.*fp16"),
        ("train.sparse.communication=int4", r"train\.sparse\.communication.*bf16.*int8"),
        ("views.fusion=sum", r"views\.fusion"),
    ],
)
def test_a_config_that_cannot_be_is_the_users_mistake(tmp_path, override, message):
    with pytest.raises(UserError, match=message):
        yaml(tmp_path, RUN, override)


DOMAINS = {"a": "data/a", "b": "data/b"}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({}, "path or domains: neither is there; allowed: one of the two"),
        ({"path": "x", "domains": DOMAINS}, "path or domains: both are there; allowed: one of the"),
        ({"domains": {"my_music": "x"}}, "domains: 'my_music'; allowed: names of letters and"),
        ({"path": "x", "temperature": 2.0}, "temperature has no effect without domains"),
        ({"path": "x", "shared_heads": False}, "shared_heads has no effect without domains"),
    ],
)
def test_data_are_one_folder_or_those_of_domains(data: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DataConfig.model_validate(data)


def test_a_run_keeps_what_it_works_out_beside_its_first_folder() -> None:
    assert DataConfig(path="x").folders == {"": "x"}
    several = DataConfig(domains=DOMAINS)
    assert several.folders == DOMAINS
    assert several.home == "data/a"
