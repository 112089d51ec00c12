"""YAML files read into strict pydantic models, every problem told by file, dotted key and value.

Example:
    config = load_yaml(Path("pretrain.yaml"), Config, ["train.steps=1000"])
    dump_yaml(config, Path("runs/first/config.yaml"))
"""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_file


class Strict(BaseModel):
    """Base of what a user writes in YAML: unknown keys are errors, values don't change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


M = TypeVar("M", bound=BaseModel)


def load_yaml(path: Path, model: type[M], overrides: Sequence[str] = ()) -> M:
    """Read `path` as a `model`; each override "a.b=value" replaces or adds a key before."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return model.model_validate(content)


def dump_yaml(model: BaseModel, path: Path) -> None:
    """Write `model` so that `load_yaml` gives an equal one."""
    with atomic_file(path) as file:
        file.write_text(
            yaml.safe_dump(model.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
            encoding="utf-8",
        )
