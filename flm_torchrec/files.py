"""Files and folders that appear whole or not at all."""

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PLACE = socket.gethostname()


def sync(path: Path) -> None:
    """Have the disk hold what was written to a file or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path, suffix: str = "") -> Path:
    """A hidden path beside `path`, of this process."""
    return path.with_name(f".{path.name.removesuffix(suffix)}.{_PLACE}.{os.getpid()}.tmp{suffix}")


def sweep(folder: Path) -> None:
    """Remove what processes of this machine that were killed left in a folder."""
    for left in folder.glob(".*.tmp*"):
        process = re.search(rf"\.{re.escape(_PLACE)}\.(\d+)\.tmp", left.name)
        if process is None or _is_alive(int(process[1])):
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and takes `path`'s name."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: writers such as pandas choose the format by it.
    temporary = _beside(path, path.suffix)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success its files are synced and it takes
    `path`'s name, replacing a folder that stands there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            sync(file)
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
