"""The rate of the tables over a run, as its checkpoints tell it."""

from pathlib import Path

import torch
from checkpoints import whole
from flm_apps import train as train_app
from small_data import write_folder

TABLE = "items_item_id.weight"


def tables(folder: Path, data: Path, *more: str) -> dict[int, torch.Tensor]:
    """The table of item ids after each step of a run of two."""
    run = folder / "run"
    small = ["data.users=2", "data.window=3", "views.width=8", "train.steps=2", "train.keep=2"]
    rates = ["train.dense.warmup=0", "train.checkpoint_every=1", "train.sparse.lr=0.5"]
    arguments = [f"data.path={data}", *small, *rates, *more]
    assert train_app.main(["--config", "tiny.yaml", "--run", str(run), *arguments]) == 0
    found = {}
    for step in (1, 2):
        entries = whole(run / "checkpoints" / f"step-{step:08}", folder)
        (found[step],) = [value for name, value in entries.items() if name.endswith(TABLE)]
    return found


def test_the_rate_of_tables_falls_with_that_of_the_rest(tmp_path: Path) -> None:
    """Rowwise Adagrad's second step is half as long: a cosine halfway down to 0."""
    folders = {decay: tmp_path / decay for decay in ("false", "true")}
    data = write_folder(tmp_path / "data")
    constant, falling = (
        tables(folder, data, f"train.sparse.decay={decay}") for decay, folder in folders.items()
    )
    torch.testing.assert_close(falling[1], constant[1], rtol=0, atol=0)
    one, other = (found[2] - found[1] for found in (constant, falling))
    assert float(one.abs().max()) > 1e-3
    torch.testing.assert_close(other, one / 2, rtol=1e-3, atol=1e-6)
