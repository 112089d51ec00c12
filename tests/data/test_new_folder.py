"""A new data folder is written in blocks, whole or not at all."""

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from flm_torchrec.data.sources.folder import new_folder
from flm_torchrec.errors import UserError


def table(first, count):
    return pa.table({"n": np.arange(first, first + count)})


@pytest.mark.parametrize("blocks", [[5], [400_000, 400_000, 3], [500_000], [0, 2], [0]])
def test_blocks_of_rows_become_one_table_in_order(tmp_path, blocks):
    out = tmp_path / "out"
    first = 0
    with new_folder(out) as folder:
        for count in blocks:
            folder.add("interactions", table(first, count))
            first += count
    assert folder.num_rows == {"interactions": first}
    assert parquet.read_table(out / "interactions.parquet").equals(table(0, first))


def test_nothing_stays_of_a_folder_that_failed(tmp_path):
    def fail():
        with new_folder(tmp_path / "out") as folder:
            folder.add("items", table(0, 500_000))
            raise UserError("broken")

    with pytest.raises(UserError, match="broken"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not an empty folder"), new_folder(tmp_path):
        raise AssertionError("not reached")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_an_empty_folder_may_be_there(tmp_path):
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as folder:
        folder.add("items", table(0, 1))
    assert (tmp_path / "out/items.parquet").exists()
