"""The files of a checkpoint, written and read by torch's DCP."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from flm_torchrec.errors import UserError
from flm_torchrec.training.hashed import hashing_writer
from flm_torchrec.training.markers import damage, digest, read_marker, written


def write(folder: Path, state: dict[str, Any], *, alone: bool = False) -> dict[str, str]:
    """Write `state` to `folder`; -> the SHA-256 of each file written so, on all ranks.

    Called by all ranks or, `alone`, by a process that is none.
    """
    writer, files = hashing_writer(folder)
    try:
        with _quiet():
            dcp_save(state, storage_writer=writer, no_dist=alone)
    except CheckpointException as error:  # a BaseException
        raise RuntimeError(f"checkpoint {folder}: can't write {_first_cause(error)}") from error
    if alone:
        return files.sha256
    of_ranks: list[dict[str, str]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(of_ranks, files.sha256)
    return {name: own for of_rank in of_ranks for name, own in of_rank.items()}


def as_written(folder: Path, sha256: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What a marker tells of each file in `folder`; those not in `sha256` are read for it."""
    return {
        file.name: {
            "bytes": file.stat().st_size,
            "sha256": sha256.get(file.name) or digest(file),
        }
        for file in sorted(folder.iterdir())
    }


def read(path: Path, state: dict[str, Any], *, alone: bool = False) -> None:
    """Read the entries of `state` into its tensors; called by all ranks or `alone`."""
    try:
        with _quiet():
            dcp_load(state, storage_reader=FileSystemReader(path), no_dist=alone)
    except CheckpointException as error:  # a BaseException
        raise UserError(f"checkpoint {path}: can't read {_first_cause(error)}") from error


def entries(path: Path) -> dict[str, TensorStorageMetadata]:
    """What is known of each tensor of the checkpoint at `path`; needs no process group."""
    found = _metadata(path).state_dict_metadata
    return {name: own for name, own in found.items() if isinstance(own, TensorStorageMetadata)}


def read_whole(path: Path) -> dict[str, Tensor]:
    """Every entry of the checkpoint at `path`, each put together; needs no process group."""
    state = {
        name: torch.empty(own.size, dtype=own.properties.dtype)
        for name, own in entries(path).items()
    }
    read(path, dict(state), alone=True)
    return state


def files_of(path: Path) -> dict[str, int]:
    """The files that the entries of the checkpoint at `path` are in, and up to which byte."""
    found: dict[str, int] = {}
    for own in (_metadata(path).storage_data or {}).values():
        end = own.offset + own.length
        found[own.relative_path] = max(end, found.get(own.relative_path, 0))
    return dict(sorted(found.items()))


def _metadata(path: Path) -> Metadata:
    try:
        return FileSystemReader(path).read_metadata()
    except Exception as error:  # of pickle's whatever the bytes bring about
        told = f"{type(error).__name__}: {error}"
        raise UserError(f"checkpoint {path}: .metadata can't be read ({told})") from error


def find_damage(path: Path) -> str | None:
    """What is wrong with the checkpoint at `path`, if anything; called by all ranks, each of which
    reads its share of the files."""
    mine = list(written(path))[dist.get_rank() :: dist.get_world_size()]
    of_ranks: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(of_ranks, damage(path, mine))
    return next((wrong for wrong in of_ranks if wrong is not None), None)


def check_files(path: Path) -> None:
    """Raise UserError, naming the file, where the checkpoint at `path` isn't as it was written."""
    read_marker(path)
    if (wrong := find_damage(path)) is not None:
        raise UserError(
            f"checkpoint {path}: {wrong}; allowed: an earlier checkpoint of the run, or a copy of "
            "the file as it was"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """DCP warns a process that is none of several, which is what was asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable")
        yield


def _first_cause(error: CheckpointException) -> str:
    rank, (cause, _) = min(error.failures.items())
    return f"on rank {rank}: {type(cause).__name__}: {cause}"
