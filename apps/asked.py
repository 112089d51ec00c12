"""Whom and what a command is asked for: users and items by file, or those of a domain."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.dataset import Dataset, Entity
from flm_torchrec.data.schema import EntitySchema
from flm_torchrec.errors import UserError


def users_and_items(dataset: Dataset) -> tuple[Entity, Entity]:
    """Who is asked for, and what there is to recommend."""
    if dataset.users is None or dataset.items is None:
        missing = "user" if dataset.users is None else "item"
        raise UserError(
            f"--run: its data has no {missing}s to recommend with; "
            f"allowed: data with interactions.{missing}"
        )
    return dataset.users, dataset.items


def rows_of_ids(
    file: str, entity: Entity, names: EntitySchema | None, *, option: str, what: str
) -> NDArray[np.int64]:
    """Rows of the users or items in a .csv or .parquet file: in the column that the data's own
    table has them in by its `names`, or else in the first."""
    told = f"{option} {file}"
    if not Path(file).is_file():
        every = "all, or " if what == "user" else ""
        raise UserError(f"{told}: no such file; allowed: {every}a CSV file of {what} ids")
    try:
        if Path(file).suffix == ".parquet":
            table = pd.read_parquet(file).astype(str)
        else:
            table = pd.read_csv(file, dtype=str, keep_default_na=False)
        column = "" if names is None else names.id
        asked = (table[column] if column in table else table.iloc[:, 0]).tolist()
    except (pd.errors.ParserError, pa.ArrowInvalid) as error:
        raise UserError(f"{told}: can't be read: {error}") from error
    except (pd.errors.EmptyDataError, IndexError) as error:
        raise UserError(f"{told}: holds no column of {what} ids") from error
    if not asked:
        raise UserError(f"{told}: holds no {what} id below its header; allowed: one a row")
    row_of = {str(id): row for row, id in enumerate(entity.ids) if row > 0}
    for place, id in enumerate(asked, 1):
        if id not in row_of:
            raise UserError(
                f"{file}, data row {place}: {what} {id!r} is not in the data; "
                f"allowed: ids of its {what}s table, such as {entity.ids[1]!r}"
            )
    return np.array([row_of[id] for id in asked], dtype=np.int64)


def user_rows(dataset: Dataset, users: str) -> NDArray[np.int64]:
    """Rows of `all` users, or of those in a file."""
    entity, _ = users_and_items(dataset)
    if users == "all":
        return np.arange(1, len(entity.ids))
    return rows_of_ids(users, entity, dataset.schema.users, option="--users", what="user")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """The data that are asked for: all that there are, or those of one domain."""

    dataset: Dataset
    users: NDArray[np.int64]  # (its user rows,) the row of each among all
    items: NDArray[np.int64]  # (its item rows,)

    @classmethod
    def of(cls, dataset: Dataset, domain: str | None) -> "Asked":
        """Those of `domain`, which need not be named where there is one."""
        users, items = users_and_items(dataset)
        domains = dataset.domains
        if domains is None:
            if domain is not None:
                raise UserError(f"--domain {domain}: the run has no domains; allowed: without it")
            rows = np.arange(len(users.ids)), np.arange(len(items.ids))
            return cls(dataset=dataset, users=rows[0], items=rows[1])
        name = domains.names[0] if domain is None and len(domains.names) == 1 else domain
        if name is None or name not in domains.names:
            allowed = ", ".join(domains.names)
            given = "is missing" if name is None else f"{name}: no such domain"
            raise UserError(f"--domain {given}; the run has several; allowed: {allowed}")
        number = domains.number(name)
        return cls(
            dataset=domains.datasets[number - 1],
            users=np.append(0, np.flatnonzero(domains.users == number)),
            items=np.append(0, np.flatnonzero(domains.items == number)),
        )
