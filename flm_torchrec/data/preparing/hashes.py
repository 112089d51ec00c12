"""Hashes of the content of files, kept so that a file is read for its hash only once."""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from flm_torchrec.data.reading.location import Location
from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_file

# A file that is changed twice within this time may show the same time and size.
_GRAIN_NS = 50_000_000


class ContentHashes:
    """Hashes by path, size and time of the last change, in a file of the prepared folders; a path
    counts from the folder of these, wherever it is mounted."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._made = file.parent.parent
        text = file.read_text(encoding="utf-8") if file.exists() else "{}"
        self._known: dict[str, list] = json.loads(text)
        self._is_new = False

    def of(self, location: Location, file: str) -> str:
        """The hash of a file of a data folder."""
        if not location.is_local:
            return location.version(file)
        path = Path(location.url) / file
        if not path.is_file():
            raise UserError(f"{path}: is no file; a folder of parts has a name without an ending")
        return self.of_path(path)

    def of_path(self, path: Path, name: Path | None = None) -> str:
        """The hash of a local file, which is to take the name `name`."""
        status, now = path.stat(), time.time_ns()
        key = os.path.relpath(name or path, self._made)
        state = [status.st_size, status.st_mtime_ns]
        *known, hashed_at, digest = self._known.get(key, [0, 0, 0, ""])
        if known == state and hashed_at - status.st_mtime_ns > _GRAIN_NS:
            return digest
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if known != state or digest != found:
            self._known[key] = [*state, now, found]
            self._is_new = True
        return found

    def save(self) -> None:
        """Keep what is new, where that can be written: without it files are read once more."""
        if self._is_new:
            with suppress(OSError), atomic_file(self._file) as file:
                file.write_text(json.dumps(self._known, indent=1), encoding="utf-8")
