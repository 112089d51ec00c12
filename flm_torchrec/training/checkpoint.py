"""Checkpoints of a sharded model, its optimizers and its step.

    folder/step-00001000/  .metadata, *.distcp   written by all ranks (torch's DCP)
                           meta.json             the marker: the folder is whole

Every function but `latest` is called by all ranks, on one file system. Learning rates aren't in a
checkpoint: whoever schedules them sets them by the step.

Example:
    checkpoint.save(folder, 1000, dmp, optimizer, keep=2, meta={})
    step = checkpoint.load(checkpoint.latest(folder), dmp, optimizer)["step"]
"""

import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.keyed import CombinedOptimizer

from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_file, sync
from flm_torchrec.training.state import check_shapes, entry_shapes, sharded_state

SCHEMA_VERSION = 1
MARKER = "meta.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """The names of a model's parameters: which came from a checkpoint, which are as initialised."""

    loaded: list[str]
    fresh: list[str]


def latest(folder: Path | str) -> Path | None:
    """The whole checkpoint of the highest step in `folder`, if there is one."""
    steps = _steps(Path(folder))
    return steps[max(steps)] if steps else None


def save(
    folder: Path | str,
    step: int,
    dmp: DistributedModelParallel,
    optimizer: CombinedOptimizer,
    *,
    keep: int,
    meta: Mapping[str, Any],
) -> None:
    """Write the checkpoint of `step`, which appears whole or not at all; keep the last `keep`.

    `meta` is what JSON can hold. Raises UserError when `folder` holds a checkpoint of a later step.
    """
    folder = Path(folder)
    target = folder / f"step-{step:08d}"
    aside = folder / f".{target.name}.tmp"
    earlier = _steps(folder)
    if any(other > step for other in earlier):
        raise UserError(
            f"{folder}: holds {earlier[max(earlier)].name}, of a run that went further than "
            f"step {step}; allowed: another folder, or going on from there"
        )
    state = sharded_state(dmp, optimizer)
    marker = {
        "schema": SCHEMA_VERSION,
        "step": step,
        "meta": dict(meta),
        "shapes": entry_shapes(state),
    }
    if dist.get_rank() == 0:
        for remains in folder.glob(".step-*.tmp"):
            shutil.rmtree(remains)
        aside.mkdir(parents=True)
    dist.barrier()
    try:
        dcp_save(state, storage_writer=FileSystemWriter(aside))
    except CheckpointException as error:  # a BaseException
        raise RuntimeError(f"checkpoint {target}: can't write {_first_cause(error)}") from error
    if dist.get_rank() == 0:
        with atomic_file(aside / MARKER) as file:
            file.write_text(json.dumps(marker, indent=1), encoding="utf-8")
        _put_in_place(aside, target)
        for _, path in sorted(_steps(folder).items())[:-keep]:
            shutil.rmtree(path)
    dist.barrier()


def read_meta(path: Path | str) -> dict[str, Any]:
    """What `save` was given as `meta` for the checkpoint at `path`, and "step"."""
    marker = _read_marker(Path(path))
    return {**marker["meta"], "step": marker["step"]}


def load(
    path: Path | str, dmp: DistributedModelParallel, optimizer: CombinedOptimizer
) -> dict[str, Any]:
    """Load the checkpoint at `path`; -> what `save` was given as `meta`, and "step".

    Raises UserError, with nothing loaded, when it is of another schema, or has not exactly the
    entries and shapes of this model and optimizer. The plan and the number of ranks may differ.
    """
    path = Path(path)
    marker = _read_marker(path)
    state = sharded_state(dmp, optimizer)
    check_shapes(f"checkpoint {path}", held=marker["shapes"], wanted=entry_shapes(state))
    _read(path, state)
    dmp.load_state_dict(OrderedDict(state["model"]))
    optimizer.load_state_dict({"state": state["optimizer"]})
    return {**marker["meta"], "step": marker["step"]}


def load_matching(
    path: Path | str,
    dmp: DistributedModelParallel,
    *,
    grown: bool = False,
    fresh: Sequence[str] = (),
) -> Matched:
    """Load what the checkpoint at `path` and the model have in common by name and shape.

    What begins with a name in `fresh` stays as it is. With `grown` tables may have more rows than
    the checkpoint's, which are their first then; every rank reads such a table whole. Buffers are
    loaded too, but not listed. Raises UserError when no trainable parameter is common to both: what
    is frozen alone, such as a pretrained encoder, is no result of training.
    """
    path = Path(path)
    held = _read_marker(path)["shapes"]
    model = dmp.state_dict()
    common, longer = {}, {}
    for name, value in model.items():
        if name.startswith(tuple(fresh)):
            continue
        shape = held.get(f"model.{name}")
        if isinstance(value, torch.Tensor) and shape == list(value.size()):
            common[name] = value
        elif grown and isinstance(value, torch.Tensor) and _has_more_rows(value, shape):
            longer[name] = value
    buffers = {name for name, _ in dmp.named_buffers()}
    names = [name for name in model if name not in buffers]
    matched = Matched(
        loaded=[name for name in names if name in common or name in longer],
        fresh=[name for name in names if name not in common and name not in longer],
    )
    frozen = {name for name, value in dmp.named_parameters() if not value.requires_grad}
    if not set(matched.loaded) - frozen:
        first = next(name for name in names if name not in frozen)
        raise UserError(
            f"checkpoint {path}: no trainable parameter of the model is in it by name and shape; "
            f"the model's first is {first} {list(model[first].size())}, "
            f"the checkpoint holds {held.get(f'model.{first}')} there"
        )
    _read(path, {"model": common})
    for name, value in longer.items():
        rows = {name: torch.empty(held[f"model.{name}"])}
        _read(path, {"model": rows})
        _fill_first_rows(value, rows[name])
    # Of the same tensors; lets the kernels drop what they cached.
    dmp.load_state_dict(OrderedDict(model))
    return matched


def _has_more_rows(value: torch.Tensor, shape: list[int] | None) -> bool:
    """Is `value` a table of the width of one of that shape, and longer?"""
    size = list(value.size())
    return shape is not None and len(shape) == 2 and size[1:] == shape[1:] and size[0] > shape[0]


def _fill_first_rows(table: torch.Tensor, rows: torch.Tensor) -> None:
    """Copy `rows` (n, d) into this rank's part of the first n rows of `table`."""
    if not isinstance(table, ShardedTensor):
        table[: len(rows)].copy_(rows)
        return
    for shard in table.local_shards():
        (row, column), (_, width) = shard.metadata.shard_offsets, shard.metadata.shard_sizes
        own = rows[row : row + len(shard.tensor), column : column + width]
        shard.tensor[: len(own)].copy_(own)


def _steps(folder: Path) -> dict[int, Path]:
    """Step -> its whole checkpoint."""
    return {
        int(path.name.removeprefix("step-")): path
        for path in folder.glob("step-*")
        if path.name.removeprefix("step-").isdigit() and (path / MARKER).is_file()
    }


def _read_marker(path: Path) -> dict[str, Any]:
    if not (path / MARKER).is_file():
        raise UserError(f"checkpoint {path}: holds no {MARKER}, so no whole checkpoint is there")
    marker = json.loads((path / MARKER).read_text(encoding="utf-8"))
    if marker.get("schema") != SCHEMA_VERSION:
        raise UserError(
            f"checkpoint {path}: schema version {marker.get('schema')}; allowed: {SCHEMA_VERSION}"
        )
    return marker


def _read(path: Path, state: dict[str, Any]) -> None:
    try:
        dcp_load(state, storage_reader=FileSystemReader(path))
    except CheckpointException as error:  # a BaseException
        raise UserError(f"checkpoint {path}: can't read {_first_cause(error)}") from error


def _first_cause(error: CheckpointException) -> str:
    rank, (cause, _) = min(error.failures.items())
    return f"on rank {rank}: {type(cause).__name__}: {cause}"


def _put_in_place(aside: Path, target: Path) -> None:
    """Give `aside` the name `target`; a checkpoint that stands there goes away after."""
    old = target.with_name(f".{target.name}.old.tmp")
    if target.exists():
        os.replace(target, old)
    os.replace(aside, target)
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)
