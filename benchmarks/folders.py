"""Data folders made of a split one, which are split otherwise but hold out the same test."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from flm_torchrec.data.compute import pc
from flm_torchrec.data.dataset import TRAIN
from flm_torchrec.data.prepare import prepare
from flm_torchrec.data.preparing.split_file import split_file
from flm_torchrec.data.schema import Schema
from flm_torchrec.files import atomic_folder
from flm_torchrec.typed_yaml import load_yaml


def with_validation(data: Path) -> Path:
    """A copy, made unless it is there, whose validation is training; -> the copy."""
    out = data.with_name(f"{data.name}-with-validation")
    if not out.exists():
        with atomic_folder(out) as folder:
            # With what is prepared: the vectors of texts are there to be read.
            shutil.copytree(data, folder, dirs_exist_ok=True)
            kind = load_yaml(data / "schema.yaml", Schema).split_rule().kind
            _train_on_validation(split_file(folder, kind))
    return out


def _train_on_validation(file: Path) -> None:
    table = parquet.read_table(file)  # its metadata tell the rule, and stay
    part = table["part"].cast(pa.string())
    part = pc.if_else(pc.equal(part, "validation"), "train", part)
    place = table.column_names.index("part")
    parquet.write_table(table.set_column(place, table.schema.field(place), [part]), file)


def thinned(data: Path, out: Path, share: float) -> Path:
    """A copy of a data folder, made unless it is there, with a share of what a split trains on,
    each user's first interaction among it, and all that it holds out; -> out.

    Of a split that leaves each user's last interactions out, the copy holds out the same.
    """
    if not out.exists():
        log = prepare(data).interactions
        is_first = np.diff(log.user, prepend=-1) != 0
        is_drawn = np.random.default_rng(0).random(len(log.user)) < share
        kept = log.source_row[is_first | is_drawn | (log.part != TRAIN)]
        with atomic_folder(out) as folder:
            copied = shutil.ignore_patterns("prepared", "splits", "interactions.parquet")
            shutil.copytree(data, folder, dirs_exist_ok=True, ignore=copied)
            table = parquet.read_table(data / "interactions.parquet")
            parquet.write_table(table.take(np.sort(kept)), folder / "interactions.parquet")
    return out
