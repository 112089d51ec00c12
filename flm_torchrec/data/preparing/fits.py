"""All that is fitted on training, by name, in files from which later data can go on."""

from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from flm_torchrec.data.preparing.vocabulary import Buckets, Scale, Vocabulary

FOLDER = "vocabularies"


class Fits:
    """Vocabularies, buckets and scales; those of an `earlier` prepared folder stay as they are,
    but that its vocabularies grow."""

    def __init__(self, earlier: Path | None = None) -> None:
        self._earlier = earlier and earlier / FOLDER
        self._made: dict[str, pa.Table] = {}

    def vocabulary(self, name: str, values: pa.Array) -> Vocabulary:
        """That of the training's `values`."""
        earlier = self._read(name, "vocabulary")
        made = Vocabulary.fit(values) if earlier is None else Vocabulary.of(earlier).grow(values)
        self._made[_file(name, "vocabulary")] = made.table()
        return made

    def buckets(self, name: str, values: NDArray[np.float64], buckets: int) -> Buckets:
        """Those of the training's `values`."""
        earlier = self._read(name, "buckets")
        made = Buckets.fit(values, buckets) if earlier is None else Buckets.of(earlier)
        self._made[_file(name, "buckets")] = made.table()
        return made

    def scale(self, name: str, values: NDArray[np.float64]) -> Scale:
        """That of the training's `values`."""
        earlier = self._read(name, "scale")
        made = Scale.fit(values) if earlier is None else Scale.of(earlier)
        self._made[_file(name, "scale")] = made.table()
        return made

    def has_vocabulary(self, name: str) -> bool:
        """Whether the earlier data fitted one."""
        return self._read(name, "vocabulary") is not None

    def save(self, folder: Path) -> None:
        """Write all that was fitted into a prepared folder."""
        (folder / FOLDER).mkdir()
        for file, table in self._made.items():
            parquet.write_table(table, folder / FOLDER / file)

    def _read(self, name: str, kind: str) -> pa.Table | None:
        path = None if self._earlier is None else self._earlier / _file(name, kind)
        return None if path is None or not path.exists() else parquet.read_table(path)


def read_vocabulary(prepared: Path, name: str) -> Vocabulary | None:
    """That of a prepared folder; None where it has none of that name."""
    path = prepared / FOLDER / _file(name, "vocabulary")
    return Vocabulary.of(parquet.read_table(path)) if path.exists() else None


def _file(name: str, kind: str) -> str:
    return f"{quote(name, safe=' ')}.{kind}.parquet"
