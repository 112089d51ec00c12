"""A prepared data set in numpy arrays: entities, interactions, and what was fitted on training.

Example:
    dataset = prepare(Path("data/ml-100k"))
    print(dataset.items.titles[dataset.interactions.item[0]])
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flm_torchrec.data.schema import Schema

TRAIN, VALIDATION, TEST = 0, 1, 2
LATER = 3  # came after the data were prepared: neither trained on nor held out
PART_NAMES = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Column:
    """One feature that enters through an embedding table: row r holds the vocabulary rows
    values[offsets[r]:offsets[r + 1]] where it may have several, else exactly values[r]."""

    values: NDArray[np.integer]  # (nnz,) or (rows,) vocabulary rows; 0 = unknown
    offsets: NDArray[np.int64] | None  # (rows + 1,), or None where each row has one value
    num_embeddings: int  # rows that its table needs, the unknown row 0 included

    @property
    def bounds(self) -> NDArray[np.int64]:
        """(rows + 1,) where each row's values begin, and where those of the last one end."""
        return np.arange(len(self.values) + 1) if self.offsets is None else self.offsets

    def owners(self) -> NDArray[np.int64]:
        """(nnz,) the row that each value belongs to."""
        return np.arange(len(self.bounds) - 1).repeat(np.diff(self.bounds))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entity:
    """The catalogue of users or items.

    Row 0 is the unknown entity: its single-valued features hold 0, its multi-valued ones are
    empty, its numbers and vectors 0, its texts "". The first column is the id itself (two columns
    where it is hashed twice); its vocabulary is fitted on training interactions, so that an entity
    without any has id value 0 but a row of its own.
    """

    ids: NDArray[np.object_]  # (rows,) as in the source; row 0 = None
    columns: dict[str, Column]
    numbers: NDArray[np.float32]  # (rows, Fn) scaled to [-1, 1], 0 = missing; numeric features
    vectors: dict[str, NDArray[np.float32]]  # by feature, each (rows, d), 0 = missing
    text: dict[str, list[str]]  # rendered texts by name, each (rows,); of items only
    num_ids: int = 1  # columns of the id, which stand in front: two ways of hashing, or domains

    @property
    def num_numbers(self) -> int:
        """Of an entity whose vectors are no views: as many as `numbers_and_vectors` has columns."""
        return self.numbers.shape[1] + sum(vector.shape[1] for vector in self.vectors.values())

    def numbers_and_vectors(self, like: "Entity | None" = None) -> NDArray[np.float32]:
        """(rows, Fn + d + ...) the numbers and, beside them, the vectors, each scaled to entries of
        mean square 1 where it is there: what an entity whose vectors are no views is read by. With
        `like` by the scale of that one's vectors."""
        parts = [self.numbers]
        for name, vector in self.vectors.items():
            scaled = vector if like is None else like.vectors[name]
            is_there = (scaled != 0).any(1)
            size = np.sqrt(np.square(scaled[is_there]).mean()) if is_there.any() else 1.0
            parts.append(vector / np.float32(size))
        return np.concatenate(parts, axis=1) if self.vectors else self.numbers

    @property
    def titles(self) -> list[str]:
        """(rows,) what to call each row: its first text, else its id."""
        names = ["" if id is None else str(id) for id in self.ids]
        first = next(iter(self.text.values()), names)
        return [text or name for text, name in zip(first, names, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Interactions:
    """Who met what, when, in which circumstances, and what came of it.

    With `order: by_user` sorted by (user, time, source row), with `by_log` in the source's order.
    """

    user: NDArray[np.int64]  # (n,) rows of the users; 0 where there are none
    item: NDArray[np.int64]  # (n,) rows of the items; 0 where there are none
    time: NDArray[np.int64]  # (n,) seconds; 0 where there is none
    source_row: NDArray[np.int64]  # (n,) row in the source, from 0
    part: NDArray[np.int8]  # (n,) TRAIN, VALIDATION or TEST, or LATER
    positive: NDArray[np.bool_]  # (n,) what ranking wants on top
    labels: dict[str, NDArray[np.float32]]  # each (n,); NaN = missing
    context: dict[str, Column]  # features of the interaction, n rows (no unknown row in front)
    numbers: NDArray[np.float32]  # (n, Fc) scaled to [-1, 1], 0 = missing: numbers and vectors
    events: NDArray[np.int64]  # (m,) the rows that enter histories, by (user, time, source row)
    user_offsets: NDArray[np.int64]  # (user rows + 1,): user u owns events[user_offsets[u]:[u + 1]]
    before: NDArray[np.int64]  # (n,) of the user's events, how many an interaction has behind it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """What `prepare` makes and everybody reads."""

    schema: Schema
    users: Entity | None
    items: Entity | None
    interactions: Interactions  # 0 rows where there is only a corpus
    levels: dict[str, NDArray[np.float32]]  # sorted training values of ordinal, multiclass labels
    moments: dict[str, tuple[float, float]]  # training mean and standard deviation of real labels
    corpus: list[str]  # texts of no item
    fingerprint: str  # of the inputs, the schema and the split
    grown_from: tuple[str, ...] = ()  # those of the data whose vocabularies these go on from
    domains: "Domains | None" = None  # where it is made of several data sets


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Domains:
    """The data sets that a `Dataset` is made of, one after another, with numbers from 1."""

    names: tuple[str, ...]
    datasets: tuple[Dataset, ...]  # each as it is alone
    users: NDArray[np.int64]  # (user rows,) the number of each one's domain; 0 = unknown
    items: NDArray[np.int64]  # (item rows,) the same
    interactions: NDArray[np.int64]  # (n,) the same

    def number(self, name: str) -> int:
        """That of a domain."""
        return 1 + self.names.index(name)

    def is_other(self, user: NDArray[np.int64]) -> NDArray[np.bool_]:
        """user (n,) rows -> (n, item rows) whether an item is of another domain than the user."""
        return self.users[user][:, None] != self.items
