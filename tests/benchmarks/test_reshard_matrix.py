"""A covering part of the matrix: each type, world and optimizer saves and loads."""

import json
from pathlib import Path
from typing import Any

import pytest
from flm_benchmarks import reshard_matrix
from flm_benchmarks.resharding import load, save
from two_ranks.pool import Ranks

from flm_torchrec.training.runtime import Runtime

PAIRS = [
    ("1 data_parallel", "2 table_wise", "rowwise_adagrad", "from data-parallel to fused"),
    ("2 table_wise", "4 grid_shard", "rowwise_adagrad", "from 1 column shard to 2 (a copy each)"),
    ("4 grid_shard", "1 row_wise", "rowwise_adagrad", "from 2 column shards to 1 (their mean)"),
    ("1 row_wise", "4 table_row_wise", "rowwise_adagrad", None),
    ("4 table_row_wise", "2 column_wise", "adagrad", None),
    ("2 column_wise", "4 table_column_wise", "rowwise_adagrad", None),
    ("4 table_column_wise", "2 data_parallel", "rowwise_adagrad", "2 column shards to 1"),
    ("2 data_parallel", "4 column_wise", "adagrad", "from data-parallel to fused"),
    ("4 column_wise", "1 table_wise", "adagrad", None),
    ("2 grid_shard", "1 table_column_wise", "adagrad", None),
    ("1 table_column_wise", "4 row_wise", "adagrad", None),
    ("4 row_wise", "4 data_parallel", "adagrad", "from fused to data-parallel"),
]


@pytest.mark.parametrize(("source", "target", "optimizer", "told"), PAIRS)
def test_a_checkpoint_moves_to_another_world_and_type(
    source: str,
    target: str,
    optimizer: str,
    told: str | None,
    alone: Runtime,
    ranks: Ranks,
    four_ranks: Ranks,
    tmp_path: Path,
) -> None:
    several = {"2": ranks, "4": four_ranks}
    (world, saved_as), (new_world, loaded_as) = source.split(), target.split()
    folder, out = tmp_path / "saved", tmp_path / "again"
    if world == "1":
        save(alone, folder, saved_as, optimizer)
    else:
        several[world].run(save, folder, saved_as, optimizer)
    is_in_columns = loaded_as in ("column_wise", "table_column_wise", "grid_shard")
    expected = "column_wise" if is_in_columns else "table_wise"
    found: dict[str, Any] = load(alone, folder, expected, optimizer, out)
    if new_world != "1":
        found = several[new_world].run(load, folder, loaded_as, optimizer, out)[0]
    elif loaded_as != expected:
        found = load(alone, folder, loaded_as, optimizer, out)
    assert found["passed"], found
    if told is None:
        assert found["converted"] == []
    else:
        assert len(found["converted"]) == 2
        assert all(told in line for line in found["converted"])


def test_the_matrix_goes_on_where_it_was_stopped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, folder = tmp_path / "matrix.jsonl", tmp_path / "saved"
    arguments = ["--worlds", "1", "--types", "table_wise", "--folder", str(folder)]
    arguments += ["--out", str(out)]
    assert reshard_matrix.main(arguments) == 0
    assert "2 of 2 pairs passed" in capfd.readouterr().out
    first, second = out.read_text().splitlines(keepends=True)
    out.write_text(first + second[:9])
    assert reshard_matrix.main(arguments) == 0
    kept, again = out.read_text().splitlines(keepends=True)
    assert (kept, json.loads(again)["optimizer"]) == (first, json.loads(second)["optimizer"])
    assert "2 of 2 pairs passed" in capfd.readouterr().out
    line = json.loads(first) | {"passed": False}
    out.write_text(json.dumps(line) + "\n" + second)
    assert reshard_matrix.main(arguments) == 1
    assert "1 of 2 pairs passed" in capfd.readouterr().out
