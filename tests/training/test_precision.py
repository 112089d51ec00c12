"""Rows in fp16, and rows sent in fewer bytes: nearly the same training, under every plan."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torchrec.modules.embedding_configs import DataType
from two_ranks.pool import Ranks
from two_ranks.toy import DIM, WIDE, make, run
from two_ranks.whole import whole_state

from flm_torchrec.errors import UserError
from flm_torchrec.training import checkpoint
from flm_torchrec.training.placing import SHARDING_TYPES
from flm_torchrec.training.precision import check_precision, codecs
from flm_torchrec.training.reshard import reshard
from flm_torchrec.training.runtime import Runtime
from flm_torchrec.training.sharding import describe_plan

STEPS = 20
FP16 = {"data_type": DataType.FP16}
FUSED = [kind for kind in SHARDING_TYPES if kind != "data_parallel"]
SUMMED = ["row_wise", "table_row_wise", "grid_shard"]  # on their way between ranks


def several(sharding: str, request: pytest.FixtureRequest) -> Ranks:
    """Enough ranks for tables of the type to be split as it splits them."""
    is_on_four = sharding in ("table_row_wise", "grid_shard")
    return request.getfixturevalue("four_ranks" if is_on_four else "ranks")


def save_start(runtime: Runtime, folder: Path) -> None:
    dmp, optimizer = make(runtime, sparse_optimizer="sgd", dim=WIDE)
    checkpoint.save(folder, 0, dmp, optimizer, keep=1, meta={})


def train_from_start(runtime: Runtime, folder: Path, sharding: str, how: dict[str, Any]) -> Any:
    """-> losses of each step, the types of tables, the plan."""
    # SGD: Adagrad's first steps make much of the smallest gradients.
    dmp, optimizer = make(runtime, sharding, sparse_optimizer="sgd", dim=WIDE, **how)
    path = checkpoint.latest(folder)
    assert path is not None
    checkpoint.load(path, dmp, optimizer)
    losses = torch.tensor(run(runtime, dmp, optimizer, steps=STEPS))
    tables = {str(v.dtype) for n, v in dmp.state_dict().items() if ".embedding_bags." in n}
    return losses, tables, describe_plan(dmp)


def error_of(runtime: Runtime, sharding: str, how: dict[str, Any]) -> str:
    try:
        make(runtime, sharding, **how)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("sharding", FUSED)
def test_rows_in_fp16_train_nearly_as_those_in_fp32(
    sharding: str, alone: Runtime, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    save_start(alone, tmp_path)
    ranks = several(sharding, request)
    whole, *_ = ranks.run(train_from_start, tmp_path, sharding, {})
    for losses, tables, plan in ranks.run(train_from_start, tmp_path, sharding, FP16):
        assert not torch.equal(losses, whole[0])
        torch.testing.assert_close(losses, whole[0], rtol=0.02, atol=0.02)
        assert tables == {"torch.float16"}
        assert {(table["sharding_type"], table["dtype"]) for table in plan} == {(sharding, "fp16")}
    assert {table["dtype"] for table in whole[2]} == {"fp32"}


def test_copies_in_fp16_are_refused_by_every_rank(ranks: Ranks) -> None:
    for told in ranks.run(error_of, "data_parallel", FP16):
        assert "is data_parallel, but its rows are fp16" in told


@pytest.mark.parametrize("sharding", ["table_wise", "row_wise", "column_wise"])
def test_rows_sent_in_fewer_bytes_train_nearly_as_whole_ones(
    sharding: str, alone: Runtime, ranks: Ranks, tmp_path: Path
) -> None:
    save_start(alone, tmp_path)
    expected = ranks.run(train_from_start, tmp_path, sharding, {})[0][0]
    found = []
    for communication, near in (("fp16", 0.002), ("bf16", 0.01), ("int8", 0.01)):
        if communication == "int8" and sharding in SUMMED:
            continue
        how = {"communication": communication}
        (losses, *_), (other, *_) = ranks.run(train_from_start, tmp_path, sharding, how)
        assert torch.equal(other, losses)
        assert (losses - expected).abs().mean() < near * expected.mean()
        # Whatever is sent is: bf16 is no fp16 on gloo either.
        assert not any(torch.equal(losses, before) for before in (expected, *found))
        found.append(losses)


@pytest.mark.parametrize("sharding", ["table_row_wise", "table_column_wise", "grid_shard"])
def test_bf16_goes_between_machines_too(
    sharding: str, alone: Runtime, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    save_start(alone, tmp_path)
    ranks = several(sharding, request)
    expected, losses = (
        ranks.run(train_from_start, tmp_path, sharding, {"communication": communication})[0][0]
        for communication in ("fp32", "bf16")
    )
    assert not torch.equal(losses, expected)
    torch.testing.assert_close(losses, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("sharding", SUMMED)
def test_int8_is_refused_by_every_rank_where_rows_are_added_up(
    sharding: str, request: pytest.FixtureRequest
) -> None:
    how = {"communication": "int8", "dim": WIDE}
    for told in several(sharding, request).run(error_of, sharding, how):
        assert told.startswith("communication: int8 can't add up the rows of ")
        assert f", which is {sharding}; allowed: data_parallel, table_wise" in told


def test_int8_sends_32_numbers_together(ranks: Ranks) -> None:
    for told in ranks.run(error_of, "table_wise", {"communication": "int8", "dim": DIM}):
        assert "has shards 8 wide; allowed: multiples of 32, or communication fp32" in told


def plan_of(runtime: Runtime, how: dict[str, Any]) -> list[dict[str, Any]]:
    return describe_plan(make(runtime, "auto", dim=WIDE, **how)[0])


def test_auto_leaves_out_what_int8_cannot_do(ranks: Ranks) -> None:
    plan, _ = ranks.run(plan_of, {"communication": "int8"})
    assert {table["sharding_type"] for table in plan} == {"table_wise"}


def test_another_communication_is_told() -> None:
    with pytest.raises(UserError, match=r"'int4' is not one of fp32, fp16, bf16, int8"):
        codecs("int4")
    assert codecs("fp32") is None


def test_tables_that_send_nothing_may_have_any_width() -> None:
    check_precision(
        "age", sharding_type="data_parallel", widths=[3], communication="int8", dtype="fp32"
    )


def saved(runtime: Runtime, folder: Path, sharding: str, how: dict[str, Any]) -> dict[str, Any]:
    dmp, optimizer = make(runtime, sharding, dim=WIDE, **how)
    run(runtime, dmp, optimizer, steps=3)
    checkpoint.save(folder, 3, dmp, optimizer, keep=1, meta={})
    return whole_state(dmp, optimizer)


def loaded(
    runtime: Runtime, path: Path, sharding: str, how: dict[str, Any], matching: bool
) -> dict[str, Any]:
    dmp, optimizer = make(runtime, sharding, dim=WIDE, **how)
    if matching:
        checkpoint.load_matching(path, dmp, grown=True)
    else:
        checkpoint.load(path, dmp, optimizer)
    return whole_state(dmp, optimizer)


@pytest.mark.parametrize("matching", [False, True])
@pytest.mark.parametrize("held", [{}, FP16])
@pytest.mark.parametrize("wanted", [{}, FP16])
def test_a_checkpoint_of_either_type_loads_on_any_ranks(
    held: dict[str, Any],
    wanted: dict[str, Any],
    matching: bool,
    alone: Runtime,
    ranks: Ranks,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = ranks.run(saved, tmp_path, "row_wise", held)[0]
    after = loaded(alone, tmp_path / "step-00000003", "table_wise", wanted, matching)
    told = sorted(line for line in capfd.readouterr().out.splitlines() if "rows of" in line)
    how = {
        (False, True): "float32 to float16 (rounded)",
        (True, False): "float16 to float32 (as they are)",
    }.get((held == FP16, wanted == FP16))
    names = ("age", "item", "user") if how else ()
    assert told == [f"converted: rows of {name} from {how}" for name in names]
    for name, value in before.items():
        if name.startswith("model.") and "embedding_bags" in name and wanted == FP16:
            value = torch.tensor(value).half().float().tolist()
        if name.startswith("model.") or not matching:
            assert after[name] == value, name


def test_the_state_of_rows_in_fp16_is_fp32(alone: Runtime) -> None:
    for name in ("rowwise_adagrad", "adagrad"):
        dmp, optimizer = make(alone, "table_wise", sparse_optimizer=name, data_type=DataType.FP16)
        run(alone, dmp, optimizer, steps=2)
        sums = {
            value.dtype
            for parameter, values in optimizer.state_dict()["state"].items()
            for value in values.values()
            if "embedding_bags" in parameter
        }
        assert sums == {torch.float32}


def test_a_checkpoint_of_fp16_rows_is_resharded(
    alone: Runtime, ranks: Ranks, tmp_path: Path
) -> None:
    before = saved(alone, tmp_path / "one", "table_wise", FP16)
    reshard(tmp_path / "one" / "step-00000003", tmp_path / "two", columns=2)
    after, _ = ranks.run(loaded, tmp_path / "two", "column_wise", FP16, False)
    for name, value in before.items():
        if name.startswith("model."):
            assert after[name] == value, name
