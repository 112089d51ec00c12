"""Checkpoints of a sharded model, its optimizers and its step.

    folder/step-00001000/  .metadata, *.distcp   written by all ranks (torch's DCP)
                           meta.json             the marker: the folder is whole

All ranks call `save`, `newest_good`, `load` and `load_matching`, on one file system. Learning rates
aren't in a checkpoint: whoever schedules them sets them by the step.

Example:
    checkpoint.save(folder, 1000, dmp, optimizer, keep=2, meta={})
    step = checkpoint.load(checkpoint.latest(folder), dmp, optimizer)["step"]
"""

import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.optim.keyed import CombinedOptimizer

from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_file, sync
from flm_torchrec.training import convert
from flm_torchrec.training.markers import (
    MARKER,
    SCHEMA_VERSION,
    latest,
    read_marker,
    read_meta,
    step_folders,
    steps,
)
from flm_torchrec.training.sharding import describe_plan
from flm_torchrec.training.state import check_shapes, entry_shapes, sharded_state
from flm_torchrec.training.stored import (
    as_written,
    check_files,
    entries,
    find_damage,
    read,
    write,
)

__all__ = [
    "MARKER",
    "Matched",
    "latest",
    "load",
    "load_matching",
    "newest_good",
    "read_meta",
    "save",
    "set_aside",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """The names of a model's parameters: which came from a checkpoint, which are as initialised."""

    loaded: list[str]
    fresh: list[str]


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
    earlier = steps(folder)
    if any(other > step for other in earlier):
        raise UserError(
            f"{folder}: holds {earlier[max(earlier)].name}, of a run that went further than "
            f"step {step}; allowed: another folder, or going on from there"
        )
    state = sharded_state(dmp, optimizer)
    widths = convert.column_widths(state["model"])
    marker = {
        "schema": SCHEMA_VERSION,
        "step": step,
        "meta": dict(meta),
        "shapes": entry_shapes(state),
        "saved_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "world_size": dist.get_world_size(),
        "plan": describe_plan(dmp),
        "column_widths": {name: own for name, own in widths.items() if len(own) > 1},
    }
    if dist.get_rank() == 0:
        for remains in folder.glob(".step-*.tmp"):
            shutil.rmtree(remains)
        aside.mkdir(parents=True)
    dist.barrier()
    # An optimizer without state, such as SGD, has an empty entry a table.
    kept = {name: values for name, values in state["optimizer"].items() if values}
    sha256 = write(aside, state | {"optimizer": kept})
    if dist.get_rank() == 0:
        marker["files"] = as_written(aside, sha256)
        with atomic_file(aside / MARKER) as file:
            file.write_text(json.dumps(marker, indent=1), encoding="utf-8")
        _put_in_place(aside, target)
        for path in list(steps(folder).values())[:-keep]:
            shutil.rmtree(path)
    dist.barrier()


def newest_good(folder: Path | str) -> tuple[Path | None, list[str]]:
    """The checkpoint of the highest step in `folder` whose files are as they were written, and
    what is wrong with those after it. Reads every file of a checkpoint once."""
    found = []
    for path in reversed(step_folders(folder).values()):
        wrong = find_damage(path)
        if wrong is None:
            return path, found
        found.append(f"checkpoint {path}: {wrong}")
    return None, found


def set_aside(folder: Path | str, *, after: Path) -> None:
    """Rename the checkpoints of later steps than `after`, so that they are checkpoints no more."""
    if dist.get_rank() == 0:
        found = list(step_folders(folder).values())
        for path in found[found.index(after) + 1 :]:
            damaged = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(damaged, ignore_errors=True)
            os.replace(path, damaged)
    dist.barrier()


def load(
    path: Path | str,
    dmp: DistributedModelParallel,
    optimizer: CombinedOptimizer,
    *,
    verified: bool = False,
) -> dict[str, Any]:
    """Load the checkpoint at `path`; -> what `save` was given as `meta`, and "step".

    The plan, the number of ranks and the type of tables' rows may differ: rank 0 says what is
    converted for it. Raises UserError, with nothing loaded, when the checkpoint is damaged (not
    looked for if it is `verified`), of another schema, or has other entries and shapes than model
    and optimizer.
    """
    path = Path(path)
    if not verified:
        check_files(path)
    marker = read_marker(path)
    state = sharded_state(dmp, optimizer)
    wanted = entry_shapes(state)
    made = convert.conversions(
        marker["shapes"],
        wanted,
        held_widths=marker.get("column_widths", {}),
        widths=convert.column_widths(state["model"]),
    )
    held = convert.after_conversion(marker["shapes"], made)
    check_shapes(f"checkpoint {path}", held=held, wanted=wanted)
    asked = {"model": state["model"], "optimizer": convert.request(state["optimizer"], made)}
    read(path, asked)
    convert.fill(state["optimizer"], asked["optimizer"], made, step=marker["step"])
    _tell(path, state["model"], made)
    dmp.load_state_dict(OrderedDict(state["model"]))
    optimizer.load_state_dict({"state": state["optimizer"]})
    return {**marker["meta"], "step": marker["step"]}


def load_matching(
    path: Path | str,
    dmp: DistributedModelParallel,
    *,
    grown: bool = False,
    fresh: Sequence[str] = (),
    known_as: Callable[[str], str] = str,
) -> Matched:
    """Load what the checkpoint at `path` and the model have in common by name and shape.

    What begins with a name in `fresh` stays as it is. With `grown` tables may have more rows than
    the checkpoint's, which are their first then; every rank reads such a table whole. Buffers are
    loaded too, but not listed. A name that the checkpoint lacks may be `known_as` another there.
    Raises UserError when no trainable parameter is common to both: what
    is frozen alone, such as a pretrained encoder, is no result of training.
    """
    path = Path(path)
    check_files(path)
    held = read_marker(path)["shapes"]
    model = dmp.state_dict()
    common, longer, found = {}, {}, set()
    for name, value in model.items():
        if name.startswith(tuple(fresh)):
            continue
        there = name if f"model.{name}" in held else known_as(name)
        shape = held.get(f"model.{there}")
        if isinstance(value, torch.Tensor) and shape == list(value.size()):
            common[there] = value
            found.add(name)
        elif grown and isinstance(value, torch.Tensor) and _has_more_rows(value, shape):
            longer[there] = value
            found.add(name)
    buffers = {name for name, _ in dmp.named_buffers()}
    names = [name for name in model if name not in buffers]
    matched = Matched(
        loaded=[name for name in names if name in found],
        fresh=[name for name in names if name not in found],
    )
    frozen = {name for name, value in dmp.named_parameters() if not value.requires_grad}
    if not set(matched.loaded) - frozen:
        first = next(name for name in names if name not in frozen)
        raise UserError(
            f"checkpoint {path}: no trainable parameter of the model is in it by name and shape; "
            f"the model's first is {first} {list(model[first].size())}, "
            f"the checkpoint holds {held.get(f'model.{first}')} there"
        )
    read(path, {"model": common})
    _tell(path, common | longer)
    for name, value in longer.items():
        rows = {name: torch.empty(held[f"model.{name}"])}
        read(path, {"model": rows})
        _fill_first_rows(value, rows[name])
    # Of the same tensors; lets the kernels drop what they cached.
    dmp.load_state_dict(OrderedDict(model))
    return matched


def _tell(path: Path, model: Mapping[str, Any], made: Sequence[convert.Conversion] = ()) -> None:
    """Say once what is converted of the checkpoint at `path` for state that is named as there."""
    if dist.get_rank() == 0:
        held = {name: own.properties.dtype for name, own in entries(path).items()}
        for line in (*convert.retyped(held, model), *(one.told() for one in made)):
            print(line, flush=True)


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


def _put_in_place(aside: Path, target: Path) -> None:
    """Give `aside` the name `target`; a checkpoint that stands there goes away after."""
    old = target.with_name(f".{target.name}.old.tmp")
    if target.exists():
        os.replace(target, old)
    os.replace(aside, target)
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)
