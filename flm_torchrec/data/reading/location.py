"""Where a data folder lies, on this machine or anywhere that fsspec reaches, and where what is
made of it goes."""

import hashlib
import os
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from flm_torchrec.errors import UserError


def cache_folder() -> Path:
    """Where downloads and what is made of remote folders are kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "flm_torchrec"


@dataclass(frozen=True, slots=True)
class Location:
    """A data folder. Its files are named by their place in it, "users/0.parquet"."""

    url: str
    made: Path  # the local folder of splits, prepared, quarantine

    @classmethod
    def of(cls, folder: "Path | str | Location") -> "Location":
        """The location that a path or URL names."""
        if isinstance(folder, Location):
            return folder
        url = str(folder)
        if "://" not in url:
            return cls(url, Path(folder))
        url = url.rstrip("/")
        digest = hashlib.sha256(url.encode()).hexdigest()[:16]
        return cls(url, cache_folder() / "prepared" / digest)

    @classmethod
    def existing(cls, folder: "Path | str | Location") -> "Location":
        """The location, where a folder has to be."""
        location = cls.of(folder)
        if not location.exists():
            raise UserError(
                f"{location.url}: there is no such folder of users, items, interactions"
            )
        return location

    @property
    def is_local(self) -> bool:
        """Whether its files can be opened by path."""
        return "://" not in self.url

    def path(self, file: str) -> Path | str:
        """What a file is called, and for a local one its path."""
        return Path(self.url) / file if self.is_local else f"{self.url}/{file}"

    def beside(self, folder: str) -> str:
        """A path or URL as it is seen from this folder."""
        if "://" in folder or Path(folder).is_absolute():
            return folder
        if self.is_local:
            return os.path.normpath(self.path(folder))
        scheme, _, place = self.url.partition("://")
        return f"{scheme}://{posixpath.normpath(f'{place}/{folder}')}"

    def exists(self) -> bool:
        """Whether there is such a folder."""
        if self.is_local:
            return Path(self.url).is_dir()
        system, root = self._system()
        try:
            return system.isdir(root)
        except OSError as error:
            raise UserError(f"{self.url}: cannot be reached: {error}") from error

    def has(self, file: str) -> bool:
        """Whether the file or folder is there."""
        if self.is_local:
            return (Path(self.url) / file).exists()
        system, root = self._system()
        return system.exists(f"{root}/{file}")

    def files(self, folder: str) -> list[str]:
        """The files in `folder`, in the order of their names, 2 before 10, hidden ones left out;
        [] where it is none. A folder in it raises UserError: its files would be missed."""
        if self.is_local:
            path = Path(self.url) / folder
            listed = [(e.name, e.is_dir()) for e in path.iterdir()] if path.is_dir() else []
        else:
            system, root = self._system()
            inside = f"{root}/{folder}"
            entries = system.ls(inside, detail=True) if system.isdir(inside) else []
            listed = [(PurePosixPath(e["name"]).name, e["type"] == "directory") for e in entries]
        shown = sorted((e for e in listed if not e[0].startswith((".", "_"))), key=_by_number)
        for name, is_folder in shown:
            if is_folder:
                raise UserError(
                    f"{self.path(f'{folder}/{name}')}: is a folder; the parts of a table lie side "
                    f"by side in {folder}"
                )
        return [f"{folder}/{name}" for name, _ in shown]

    def size(self, file: str) -> int:
        """Bytes of a file."""
        if self.is_local:
            return (Path(self.url) / file).stat().st_size
        system, root = self._system()
        return system.size(f"{root}/{file}") or 0

    def open(self, file: str) -> BinaryIO:
        """The file, to be read."""
        if self.is_local:
            return (Path(self.url) / file).open("rb")
        system, root = self._system()
        return cast(BinaryIO, system.open(f"{root}/{file}", "rb"))

    def version(self, file: str) -> str:
        """Of a file that is not local: what changes with its content, as its store tells."""
        system, root = self._system()
        return str(system.ukey(f"{root}/{file}"))

    def _system(self) -> tuple[AbstractFileSystem, str]:
        try:
            system, root = url_to_fs(self.url)
        except (ValueError, ImportError, OSError) as error:
            raise UserError(f"{self.url}: cannot be reached: {error}") from error
        return system, str(root).rstrip("/")


def _by_number(entry: tuple[str, bool]) -> list[tuple[int, str]]:
    """A key that sorts part-2 before part-10."""
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in re.split(r"(\d+)", entry[0])]
