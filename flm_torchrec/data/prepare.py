"""From a data folder (users, items, interactions, corpus, schema.yaml) to a `Dataset`.

Example:
    dataset = prepare(Path("data/ml-100k"))
    print(len(dataset.interactions.user), dataset.items.titles[1])
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flm_torchrec.data.dataset import Dataset
from flm_torchrec.data.preparing.corpus import write_corpus
from flm_torchrec.data.preparing.data_schema import earlier_folder, load_schema
from flm_torchrec.data.preparing.entities import Catalogue, needs_table
from flm_torchrec.data.preparing.fits import Fits
from flm_torchrec.data.preparing.hashes import ContentHashes
from flm_torchrec.data.preparing.interactions import write_no_interactions
from flm_torchrec.data.preparing.prepare_log import split_log, write_log
from flm_torchrec.data.preparing.split_file import split_file, write_split
from flm_torchrec.data.preparing.stage_log import Mapper, log_path, stage_log
from flm_torchrec.data.preparing.staging import staging_folder
from flm_torchrec.data.reading.bad_rows import read_bad_rows, save_bad_rows, write_quarantine
from flm_torchrec.data.reading.location import Location
from flm_torchrec.data.reading.parts import Part, is_there, parts_of
from flm_torchrec.data.schema import EntitySchema, Schema
from flm_torchrec.data.storage import is_prepared, load, read_fingerprints, save_meta
from flm_torchrec.files import atomic_file, atomic_folder

_FORMAT = 6  # of the prepared folder; a change makes the old ones stale
Progress = Callable[[str], None]


def prepare(
    folder: Path | str,
    *,
    mapper: Mapper = map,
    progress: Progress | None = None,
) -> Dataset:
    """Prepare a data folder, or open what was prepared from the same content before.

    Beside the tables it writes splits/KIND.parquet, unless the file is there already: then it
    decides. Bad data raise `UserError` and leave the folder as it was. `folder` is a path, or a
    URL that fsspec knows; then all is written into a local cache. `mapper` reads the pieces of the
    interactions, in other processes if it likes; `progress` is told what has been done.
    """
    return load(_prepared(folder, mapper, progress or (lambda _: None), ()))


def _prepared(
    folder: Path | str | Location, mapper: Mapper, progress: Progress, later: tuple[str, ...]
) -> Path:
    """The prepared folder; `later` are those that grow from it."""
    location = Location.existing(folder)
    schema = load_schema(location)
    before, earlier = earlier_folder(location, schema, later), None
    if before is not None:
        earlier = before.made
        if not is_prepared(earlier):
            earlier = _prepared(before, mapper, progress, (*later, location.url))
    job = _Job(location, schema, earlier, ContentHashes(location.made / "prepared" / "hashes.json"))
    ready = job.ready()
    if ready is None or not ready.exists():
        try:
            with staging_folder(location.made, job.key) as staging:
                ready = job.run(staging, mapper, progress)
        except FileNotFoundError:
            # Another process may have prepared the same meanwhile and removed the chunks.
            ready = job.ready()
            if ready is None or not ready.exists():
                raise
    else:
        # What is prepared can be read where nothing can be written.
        with suppress(OSError):
            job.tell_bad_rows(ready, progress)
    job.hashes.save()
    return ready


@dataclass(frozen=True)
class _Job:
    """What is prepared of what."""

    location: Location
    schema: Schema
    earlier: Path | None  # a prepared folder to go on from
    hashes: ContentHashes

    @property
    def split(self) -> Path | None:
        """The file of the split; None where there is nothing to split."""
        kind = self.schema.split_rule().kind
        return None if self.schema.interactions is None else split_file(self.location.made, kind)

    def entities(self) -> dict[str, EntitySchema]:
        """The catalogues by the names of their tables."""
        both = {"users": self.schema.users, "items": self.schema.items}
        return {name: schema for name, schema in both.items() if schema is not None}

    def grown_from(self) -> list[str]:
        """The fingerprints of the data that came before."""
        return [] if self.earlier is None else read_fingerprints(self.earlier)

    def _parts(self) -> list[Part]:
        names = [
            name
            for name, schema in self.entities().items()
            if needs_table(schema) or is_there(self.location, name)
        ]
        names += [] if self.schema.interactions is None else ["interactions"]
        names += [] if self.schema.corpus is None else ["corpus"]
        return [part for name in names for part in parts_of(self.location, name)]

    @cached_property
    def key(self) -> str:
        """A hash of all that decides, but for the split."""
        # Where the earlier data lie is nobody's matter.
        schema = self.schema.model_dump_json(exclude={"grow_from"})
        grown = " ".join(self.grown_from())
        digest = hashlib.sha256(f"{_FORMAT} {schema} {grown}".encode())
        for part in self._parts():
            digest.update(f"{part.file} {self.hashes.of(part.location, part.file)} ".encode())
        return digest.hexdigest()[:16]

    def fingerprint(self, split: Path | None) -> str:
        """A hash of all that decides; `split` is the file of the split, or is to become it."""
        content = "" if split is None else self.hashes.of_path(split, self.split)
        return hashlib.sha256(f"{self.key} {content}".encode()).hexdigest()[:16]

    def _folder(self, fingerprint: str) -> Path:
        return self.location.made / "prepared" / fingerprint

    def ready(self) -> Path | None:
        """Where it is prepared already, if it is; None where there is no split yet."""
        if self.split is not None and not self.split.exists():
            return None
        return self._folder(self.fingerprint(self.split))

    def run(self, staging: Path, mapper: Mapper, progress: Progress) -> Path:
        """Prepare; `staging` is a folder to work in. Gives the prepared folder."""
        if self.split is None:
            fingerprint = self.fingerprint(None)
            with atomic_folder(self._folder(fingerprint)) as aside:
                nothing = {"users": None, "items": None, **write_no_interactions(aside)}
                self._finish(aside, fingerprint, nothing, progress)
            return self._folder(fingerprint)
        catalogues = {
            name: Catalogue.read(self.location, name, schema)
            for name, schema in self.entities().items()
        }
        staged = stage_log(
            self.location, self.schema, catalogues, staging, mapper=mapper, progress=progress
        )
        path = log_path(self.location, parts_of(self.location, "interactions"))
        log, known, facts = split_log(self.schema, catalogues, staged, path=path, split=self.split)
        fits = Fits(self.earlier)
        with ExitStack() as stack:
            split = self.split
            if not split.exists():
                split = stack.enter_context(atomic_file(self.split))
                write_split(split, log.part, facts, self.schema.split_rule())
                progress(f"split: {self.schema.split_rule().kind}")
            fingerprint = self.fingerprint(split)
            aside = stack.enter_context(atomic_folder(self._folder(fingerprint)))
            meta = write_log(log, known, fits, aside)
            fits.save(aside)
            bad = staged.bad()
            save_bad_rows(aside, bad)
            counts = dict(Counter(bad["column"].to_pylist()))
            self._finish(aside, fingerprint, meta | {"bad_rows": counts}, progress)
        self.tell_bad_rows(self._folder(fingerprint), progress)
        return self._folder(fingerprint)

    def tell_bad_rows(self, prepared: Path, progress: Progress) -> None:
        """Tell what a prepared folder was made without, in the quarantine file too."""
        bad = read_bad_rows(prepared)
        if counts := Counter(bad["column"].to_pylist()):
            columns = ", ".join(f"{name or 'rows'} {count:,}" for name, count in counts.items())
            progress(f"interactions: {bad.num_rows:,} bad rows were left out: {columns}")
        if self.schema.on_bad_rows == "quarantine":
            write_quarantine(self.location.made, bad)

    def _finish(
        self, folder: Path, fingerprint: str, meta: dict[str, Any], progress: Progress
    ) -> None:
        """Write the corpus and the meta."""
        if self.schema.corpus is not None:
            count = write_corpus(self.location, self.schema.corpus, folder)
            progress(f"corpus: {count:,} texts")
        schema = self.schema.model_dump(mode="json")
        given = {"fingerprint": fingerprint, "grown_from": self.grown_from(), "schema": schema}
        save_meta(folder, **given, **meta)
