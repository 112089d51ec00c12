"""A copy of a data folder that holds out something else."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flm_torchrec.data.schema import Schema
from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_folder
from flm_torchrec.typed_yaml import dump_yaml, load_yaml

# What `prepare` makes.
_MADE = ("prepared", "splits", "quarantine")


def resplit(data: Path, out: Path, rule: Mapping[str, Any]) -> Path:
    """Write the copy `out`, whose schema has the `split` of `rule`, key by key; -> out.

    UserError where the rule is no split of these data, where `data` is no local data folder, and
    where `out` is there.
    """
    schema_file = data / "schema.yaml"
    if not schema_file.is_file():
        raise UserError(f"{schema_file}: is not there; allowed: a data folder of this machine")
    if out.exists():
        raise UserError(f"{out}: is there already; allowed: a new folder")
    schema = load_yaml(schema_file, Schema, [f"split={json.dumps(dict(rule))}"])
    with atomic_folder(out) as folder:
        kept = shutil.ignore_patterns(*_MADE)
        shutil.copytree(data, folder, ignore=kept, dirs_exist_ok=True)
        dump_yaml(schema, folder / "schema.yaml")
    return out
