"""Files whose SHA-256 is known when they are written, so that nothing is read again for it."""

import hashlib
import io
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemWriter
from typing_extensions import Buffer


class HashedFiles(FileSystem):
    """DCP's files on a disk, which remembers what is written through it."""

    def __init__(self) -> None:
        super().__init__()
        self.sha256: dict[str, str] = {}

    @contextmanager
    def create_stream(
        self, path: str | os.PathLike[str], mode: str
    ) -> Generator[io.IOBase, None, None]:
        if mode != "wb":
            with super().create_stream(path, mode) as stream:
                yield stream
            return
        with _Hashed(path) as stream:
            yield stream
        self.sha256[Path(path).name] = stream.sha256.hexdigest()

    def rename(self, path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        super().rename(path, new_path)
        if (known := self.sha256.pop(Path(path).name, None)) is not None:
            self.sha256[Path(new_path).name] = known


class _Hashed(io.BufferedWriter):
    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(io.FileIO(path, "w"))
        self.sha256 = hashlib.sha256()

    def write(self, buffer: Buffer, /) -> int:
        self.sha256.update(buffer)
        return super().write(buffer)


def hashing_writer(folder: Path) -> tuple[FileSystemWriter, HashedFiles]:
    """What DCP writes to `folder` with, and what it has written."""
    writer, files = FileSystemWriter(folder), HashedFiles()
    writer.fs = files
    return writer, files
