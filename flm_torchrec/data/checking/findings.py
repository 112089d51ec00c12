"""What a check finds in a table, and the catalogues that it compares interactions with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.preparing.vocabulary import hashed

_SAMPLE = 200_000  # rows of a catalogue whose columns are kept


@dataclass(slots=True)
class Findings:
    """Facts for the reader, what `prepare` stops at, and what is hardly meant."""

    facts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def extend(self, other: "Findings") -> None:
        """Take over what was found elsewhere."""
        self.facts += other.facts
        self.problems += other.problems
        self.warnings += other.warnings


def percent(part: int, whole: int) -> str:
    """A share as "12 (0.30%)"."""
    return f"{part:,} ({part / max(1, whole):.2%})"


@dataclass(slots=True)
class Catalogue:
    """The users or items: all ids, hashed, and the columns of the first rows by (use, column)."""

    ids: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    columns: dict[tuple[str, str], pa.Array] = field(default_factory=dict)

    def add(self, ids: pa.Array, columns: Mapping[tuple[str, str], pa.Array]) -> NDArray[np.int64]:
        """Add a chunk but for rows without an id; gives its rows whose ids were there before."""
        rows = np.flatnonzero(ids.is_valid())
        hashes = hashed(ids)[rows]
        is_first = np.zeros(len(hashes), bool)
        is_first[np.unique(hashes, return_index=True)[1]] = True
        is_again = ~is_first | np.isin(hashes, self.ids)
        if not len(self.ids):
            kept = pa.array(rows[:_SAMPLE])
            self.columns = {use: column.take(kept) for use, column in columns.items()}
        self.ids = np.concatenate([self.ids, hashes])
        return rows[is_again]

    def rows(self, ids: NDArray[np.uint64]) -> pa.Array:
        """(n,) the row of each id among those whose columns are kept; null = none."""
        kept = self.ids[:_SAMPLE]
        order = np.argsort(kept)
        place = np.searchsorted(kept, ids, sorter=order)
        rows = order[np.minimum(place, len(kept) - 1)] if len(kept) else np.zeros(len(ids), int)
        is_there = np.isin(ids, kept)
        return pa.array(rows, mask=~is_there)
