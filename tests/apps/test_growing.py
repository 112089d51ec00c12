"""Newer data that grow from older ones, and a run that goes on with the rows it has learned."""

from pathlib import Path

import pytest
import torch
from flm_apps import train as train_app
from flm_apps.trained import load_run
from small_data import write_folder

from flm_torchrec.training.runtime import start

NEW = "u0,i3,2,7\nu0,i1,2,8\nu0,i2,3,9\nu0,i4,3,10\n"


def train(data: Path, run: Path, *overrides: str) -> int:
    small = ["data.users=2", "data.window=4", "views.width=8", "train.steps=2"]
    settings = [f"data.path={data}", *small, "train.checkpoint_every=2", *overrides]
    return train_app.main(["--config", "tiny.yaml", "--run", str(run), *settings])


def user_rows(run: Path) -> torch.Tensor:
    """The table of a run's users."""
    with start() as runtime:
        weights = load_run(run, runtime).model.state_dict()
    shards = weights["flm.user_view.ebc.embedding_bags.users_user_id.weight"].local_shards()
    return shards[0].tensor.clone()


@pytest.fixture
def older(tmp_path: Path) -> tuple[Path, Path]:
    data, run = write_folder(tmp_path / "old"), tmp_path / "runs" / "old"
    assert train(data, run) == 0
    return data, run


def newer(folder: Path, schema: str = "") -> Path:
    """The same data later, with a user that sorts before the others."""
    write_folder(folder)
    for name, more in (("interactions.csv", NEW), ("users.csv", "u0,90,cook\n")):
        path = folder / name
        path.write_text(path.read_text() + more)
    path = folder / "schema.yaml"
    path.write_text(path.read_text() + schema)
    return folder


def test_a_run_on_grown_data_starts_with_the_rows_it_has_learned(
    older: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = user_rows(older[1])
    data, run = newer(tmp_path / "new", "grow_from: ../old\n"), tmp_path / "runs" / "new"
    capfd.readouterr()
    still = ["train.sparse.lr=0", "train.dense.lr=0"]
    assert train(data, run, f"init={older[1]}", *still) == 0
    assert " 0 fresh" in capfd.readouterr().out
    after = user_rows(run)
    assert len(after) == len(before) + 1
    assert torch.equal(after[: len(before)], before)


def test_data_that_did_not_grow_are_refused(
    older: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = newer(tmp_path / "new")
    capfd.readouterr()
    assert train(data, tmp_path / "runs" / "new", f"init={older[1]}") == 2
    assert "was trained on data" in capfd.readouterr().err
    assert not (tmp_path / "runs" / "new" / "checkpoints").exists()
