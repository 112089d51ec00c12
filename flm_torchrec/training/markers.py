"""What a run's folder of checkpoints holds, by the markers in it; needs no torch.

    folder/step-00001000/  .metadata, *.distcp   written by all ranks (torch's DCP)
                           meta.json             the marker: the folder is whole

A marker tells the step, what the caller of `save` gave, the shape of each entry, by how many ranks
and under which plan it was written, and how many bytes each file has, with their SHA-256.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flm_torchrec.errors import UserError

SCHEMA_VERSION = 1
MARKER = "meta.json"


def step_folders(folder: Path | str) -> dict[int, Path]:
    """Step -> its checkpoint, whether or not it has a marker; in order."""
    found = {
        int(path.name.removeprefix("step-")): path
        for path in Path(folder).glob("step-*")
        if path.name.removeprefix("step-").isdigit()
    }
    return dict(sorted(found.items()))


def steps(folder: Path | str) -> dict[int, Path]:
    """Step -> its checkpoint, of those in `folder` that have a marker; in order."""
    found = step_folders(folder)
    return {step: path for step, path in found.items() if (path / MARKER).is_file()}


def latest(folder: Path | str) -> Path | None:
    """The checkpoint of the highest step in `folder` that has a marker, if there is one."""
    found = steps(folder)
    return found[max(found)] if found else None


def read_marker(path: Path | str) -> dict[str, Any]:
    """The marker of the checkpoint at `path`; UserError where there is none that can be read."""
    path = Path(path)
    if not (path / MARKER).is_file():
        raise UserError(f"checkpoint {path}: holds no {MARKER}, so no whole checkpoint is there")
    if (marker := _parsed(path)) is None:
        raise UserError(f"checkpoint {path}: {MARKER} is damaged: it is no marker")
    if marker.get("schema") != SCHEMA_VERSION:
        raise UserError(
            f"checkpoint {path}: schema version {marker.get('schema')}; allowed: {SCHEMA_VERSION}"
        )
    return marker


def read_meta(path: Path | str) -> dict[str, Any]:
    """What `save` was given as `meta` for the checkpoint at `path`, and "step"."""
    marker = read_marker(path)
    return {**marker["meta"], "step": marker["step"]}


def written(path: Path | str) -> dict[str, dict[str, Any]]:
    """File -> its "bytes" and "sha256" when it was written; nothing of checkpoints that were
    written before these were kept."""
    return (_parsed(Path(path)) or {}).get("files", {})


def damage(
    path: Path | str, files: Iterable[str] | None = None, *, reads: bool = True
) -> str | None:
    """What is wrong with the first of `files` (all) that is missing or not as it was written.

    None where they are well, and of a checkpoint without checksums. Unless it `reads` the files,
    their sizes have to do.
    """
    path = Path(path)
    if not (path / MARKER).is_file():
        return f"{MARKER} is missing"
    if _parsed(path) is None:
        return f"{MARKER} is damaged: it is no marker"
    known = written(path)
    for name in known if files is None else files:
        if not (path / name).is_file():
            return f"{name} is missing"
        size = (path / name).stat().st_size
        if size != known[name]["bytes"]:
            return f"{name} is damaged: {size} bytes, {known[name]['bytes']} were written"
        try:
            if reads and digest(path / name) != known[name]["sha256"]:
                return f"{name} is damaged: its SHA-256 isn't that of what was written"
        except OSError as error:
            return f"{name} can't be read: {error.strerror}"
    return None


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parsed(path: Path) -> dict[str, Any] | None:
    try:
        marker = json.loads((path / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # the latter are JSON's and UTF-8's
        return None
    return marker if isinstance(marker, dict) else None
