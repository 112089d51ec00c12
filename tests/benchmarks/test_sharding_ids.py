from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flm_benchmarks.sharding.ids import (
    DISTINCT_BATCHES,
    check_ids,
    make_batches,
    owners,
    read_log,
    zipf_rows,
)
from flm_benchmarks.sharding.model import SampleBatch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from flm_torchrec.errors import UserError
from flm_torchrec.planning.tables import Table

TABLES = (
    Table(name="a", rows=50, dim=4, pooling=2.5, features=("x", "y")),
    Table(name="b", rows=7, dim=8, is_weighted=True),
)


def ids_of(kjt: KeyedJaggedTensor | None, feature: str) -> list[list[int]]:
    assert kjt is not None
    values, offsets = kjt[feature].values().tolist(), kjt[feature].offsets().tolist()
    return [values[a:b] for a, b in pairwise(offsets)]


@pytest.mark.parametrize("ids", ["uniform", "zipf:1.1", "zipf:1", "zipf:0.7"])
def test_ranks_share_the_global_batch(ids: str) -> None:
    whole = make_batches(TABLES, 8, ids, seed=3, rank=0, world_size=1)
    halves = [make_batches(TABLES, 8, ids, seed=3, rank=rank, world_size=2) for rank in range(2)]
    assert len(whole.parts) == DISTINCT_BATCHES
    for number, batch in enumerate(whole.parts):
        of_ranks = [half.parts[number] for half in halves]
        for feature in ("x", "y"):
            bags = [ids_of(part.features, feature) for part in of_ranks]
            assert bags[0] + bags[1] == ids_of(batch.features, feature)
        bags = [ids_of(part.weighted, "b") for part in of_ranks]
        assert bags[0] + bags[1] == ids_of(batch.weighted, "b")
        assert batch.weighted is not None
        assert len(batch.weighted.weights()) == 8
    assert halves[0].lookups == halves[1].lookups == whole.lookups
    check_ids(whole.parts, TABLES)


def test_another_seed_is_another_batch() -> None:
    first, second = (
        make_batches(TABLES, 8, "uniform", seed=seed, rank=0, world_size=1) for seed in (0, 1)
    )
    assert ids_of(first.parts[0].features, "x") != ids_of(second.parts[0].features, "x")


def test_bags_have_the_pooling_factor_in_the_mean() -> None:
    made = make_batches(TABLES, 4096, "uniform", seed=0, rank=0, world_size=1)
    assert {len(bag) for bag in ids_of(made.parts[0].features, "x")} == {2, 3}
    assert made.lookups["a"] == pytest.approx(2 * 2.5 * 4096, rel=0.01)
    assert made.lookups["b"] == 4096
    assert made.distinct == {"a": 50, "b": 7}


def test_zipf_ids_are_drawn_by_rank_to_the_power_of_the_exponent() -> None:
    rows = zipf_rows(np.random.default_rng(0), 10_000, 200_000, 1.2)
    counts = np.sort(np.bincount(rows, minlength=10_000))[::-1]
    assert rows.min() >= 0
    assert rows.max() < 10_000
    slope = np.log(counts[10] / counts[300]) / np.log(301 / 11)
    assert slope == pytest.approx(1.2, abs=0.15)
    frequent = np.argsort(np.bincount(rows, minlength=10_000))[::-1][:100]
    assert (frequent < 5_000).sum() == pytest.approx(50, abs=20)  # scattered over the table


def test_ids_come_from_a_log_in_its_order(tmp_path: Path) -> None:
    lists = [[1], [2, 3], [], [4]]
    pd.DataFrame({"x": lists, "y": [5, 6, 7, 8], "b": [0, 1, 2, 3]}).to_parquet(
        tmp_path / "log.parquet"
    )
    log = read_log(tmp_path / "log.parquet", TABLES)
    assert log["x"].tolist() == [1, 2, 3, 4]
    made = make_batches(TABLES, 4, "log", seed=0, rank=0, world_size=1, log=log)
    assert ids_of(made.parts[0].weighted, "b") == [[0], [1], [2], [3]]
    x = np.concatenate([np.array(bag) for bag in ids_of(made.parts[0].features, "x")]).tolist()
    assert x[:6] == [1, 2, 3, 4, 1, 2]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"x": [1], "b": [1]}, "there is no column 'y'; it has x, b"),
        ({"x": [1], "y": [50], "b": [1]}, "feature 'y': id 50 is no row of table 'a', which has"),
        ({"x": [-1], "y": [5], "b": [1]}, "feature 'x': id -1 is no row of table 'a'"),
        ({"x": ["one"], "y": [5], "b": [1]}, "column 'x' has no whole numbers only"),
        ({"x": [1.5], "y": [5], "b": [1]}, "column 'x' has no whole numbers only"),
        ({"x": [None], "y": [5], "b": [1]}, "column 'x' has no whole numbers only"),
    ],
)
def test_a_log_that_does_not_fit_the_tables_is_told(
    columns: dict[str, list[object]], told: str, tmp_path: Path
) -> None:
    pd.DataFrame(columns).to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(UserError) as error:
        read_log(tmp_path / "log.csv", TABLES)
    assert told in str(error.value)
    with pytest.raises(UserError, match=r"allowed: a \.parquet or a \.csv file"):
        read_log(tmp_path / "log.txt", TABLES)


def test_an_index_out_of_range_is_named_with_feature_value_and_table_size() -> None:
    made = make_batches(TABLES, 8, "uniform", seed=0, rank=0, world_size=1)
    smaller = (TABLES[0], Table(name="b", rows=2, dim=8, is_weighted=True))
    with pytest.raises(UserError, match=r"'b': id \d is no row of table 'b', which has 2 rows"):
        check_ids(made.parts, smaller)


def test_a_feature_of_no_table_or_of_two_is_named() -> None:
    made = make_batches(TABLES, 8, "uniform", seed=0, rank=0, world_size=1)
    parts: list[SampleBatch] = list(made.parts)
    with pytest.raises(UserError, match="feature 'b' is in no table; allowed: x, y"):
        check_ids(parts, TABLES[:1])
    with pytest.raises(UserError, match="feature 'x' is read by the tables a, c"):
        owners([*TABLES, Table(name="c", rows=5, dim=4, features=("x",))])
