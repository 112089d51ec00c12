"""A run whose tables are in fp16, from one in fp32 and into one, in this process."""

import json
from pathlib import Path

import pytest
import torch
from checkpoints import whole
from flm_apps import checkpoint as checkpoint_app
from flm_apps import evaluate
from flm_apps import train as train_app
from small_data import write_folder

LAST = Path("checkpoints") / "step-00000004"
SMALL = ("data.users=2", "data.window=3", "views.width=32", "train.checkpoint_every=2")
HALF = ("train.sparse.dtype=fp16", "train.sparse.communication=int8")
LOW_RANK = "views.linear={rank: 32}"


def train(run: Path, data: Path, *arguments: str) -> int | None:
    given = [*SMALL, "train.steps=4", f"data.path={data}", LOW_RANK, *arguments]
    return train_app.main(["--config", "tiny.yaml", "--run", str(run), *given])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    run = tmp_path_factory.mktemp("runs") / "half"
    assert train(run, data, *HALF, "sharding.default=table_wise") == 0
    return run


def tables(run: Path, folder: Path) -> dict[str, torch.Tensor]:
    """Rows by name; and apart from them what the optimizer keeps is fp32."""
    found = whole(run / LAST, folder)
    sums = {name: own for name, own in found.items() if name.endswith(".momentum1")}
    assert sums
    assert {own.dtype for own in sums.values()} == {torch.float32}
    rows = {
        name: own
        for name, own in found.items()
        if name.startswith(".model.") and ".embedding_bags." in name
    }
    assert rows
    return rows


def test_a_run_keeps_its_rows_in_fp16_and_is_scored(
    half: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = tables(half, tmp_path)
    assert {own.dtype for own in rows.values()} == {torch.float16}
    assert any("linear_history" in name for name in rows)
    report = json.loads((half / "report.json").read_text())
    assert {table["dtype"] for table in report["plan"]} == {"fp16"}
    assert checkpoint_app.main(["inspect", str(half)]) == 0
    told = capfd.readouterr().out.splitlines()
    placed = next(line for line in told if line.startswith("users_age"))
    entry = next(line for line in told if "users_age.weight " in line)
    assert placed.split()[3:5] == ["fp16", "table_wise"]
    assert "float16" in entry.split()
    assert evaluate.main(["--run", str(half)]) == 0


@pytest.mark.parametrize(
    ("arguments", "how"),
    [
        ((), "float16 to float32 (as they are)"),
        (HALF, None),
    ],
)
def test_a_run_goes_on_from_rows_in_fp16(
    arguments: tuple[str, ...],
    how: str | None,
    half: Path,
    data: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    rate = "train.sparse.lr=0"
    assert train(tmp_path / "run", data, f"init={half}", rate, *arguments) == 0
    told = [line for line in capfd.readouterr().out.splitlines() if "converted: rows of" in line]
    assert len(told) == (len(tables(half, tmp_path)) if how else 0)
    assert all(line.endswith(f"from {how}") for line in told)
    before, after = tables(half, tmp_path), tables(tmp_path / "run", tmp_path)
    assert {own.dtype for own in after.values()} == {torch.float32 if how else torch.float16}
    for name, rows in before.items():
        assert torch.equal(rows.float(), after[name].float()), name


def test_a_run_in_fp16_starts_from_one_in_fp32_and_is_resumed(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(first, data) == 0
    assert train(second, data, f"init={first}", "train.sparse.lr=0", *HALF[:1]) == 0
    assert "from float32 to float16 (rounded)" in capfd.readouterr().out
    rounded = tables(second, tmp_path)
    for name, rows in tables(first, tmp_path).items():
        assert torch.equal(rows.half(), rounded[name]), name
    assert train(first, data, "--resume", "train.sparse.dtype=fp16", "train.steps=6") == 0
    assert "from float32 to float16 (rounded)" in capfd.readouterr().out
