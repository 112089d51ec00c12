"""From a canonical folder (tables and schema.yaml) to a `Dataset`, made once and then reused.

Example:
    dataset = prepare(Path("data/ml-100k"))
    print(len(dataset.interactions.user))
"""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import parquet

from flm_torchrec.data.columns import feature_column, id_column
from flm_torchrec.data.dataset import PART_NAMES, TRAIN, Dataset, Entity, Interactions, load, save
from flm_torchrec.data.labels import check_repeats, label_values
from flm_torchrec.data.schema import EntitySchema, Schema
from flm_torchrec.data.split import leave_one_out
from flm_torchrec.data.tables import Table, read_table, table_path
from flm_torchrec.data.template import render
from flm_torchrec.data.vocabulary import Vocabulary
from flm_torchrec.errors import UserError
from flm_torchrec.files import atomic_file, atomic_folder
from flm_torchrec.typed_yaml import load_yaml

SPLIT = Path("splits/leave_one_out.parquet")
_FORMAT = 1  # of the prepared folder and of what is computed into it


def _catalogue(table: Table, id_name: str) -> pa.Array:
    """The ids of an entity's table, which must be distinct."""
    ids = table.ids(id_name)
    places = np.unique(pc.index_in(ids, pc.unique(ids)).to_numpy(), return_index=True)[1]
    again = np.setdiff1d(np.arange(len(ids)), places)
    if len(again):
        row = int(again[0])
        first = pc.index(ids, ids[row]).as_py()
        what = f"'{ids[row]}' stands in data row {first + 1} already; ids are distinct"
        raise table.problem(row, id_name, what)
    return ids


def _entity_rows(table: Table, name: str, ids: pa.Array, entities: Table) -> NDArray[np.int64]:
    """(n,) the catalogue's row (from 1) of each id in an interactions column."""
    values = table.ids(name)
    if values.type != ids.type:
        values, ids = values.cast(pa.large_string()), ids.cast(pa.large_string())
    rows = Vocabulary(ids).rows(values)
    unknown = np.flatnonzero(rows == 0)
    if len(unknown):
        row = int(unknown[0])
        more = f" ({len(unknown)} rows have such ids)" if len(unknown) > 1 else ""
        raise table.problem(row, name, f"'{values[row]}' is not in {entities.path}{more}")
    return rows
