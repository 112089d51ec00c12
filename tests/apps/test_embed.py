"""The vectors of a run in files."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny
import torch
from flm_apps import embed
from flm_apps import train as train_app
from flm_apps.trained import load_run
from pyarrow import parquet
from small_data import files_of, write_folder

from flm_torchrec.data.dataset import TEST
from flm_torchrec.data.sampling import histories
from flm_torchrec.retrieval import encode_items, evaluating
from flm_torchrec.training.runtime import Runtime, start


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("embed")
    changes = {
        "items.csv": ("i3,Three,,c", "i3,,,c"),  # without a title
        "schema.yaml": ("{title} ({year}). {genres}", "{title}"),
    }
    data, path = write_folder(folder / "data", changes), folder / "run"
    small = ["data.users=2", "data.window=3", "views.width=8", "train.steps=2"]
    text = ["views.text.max_tokens=8", f"views.text.encoder={encoder_folder}"]
    settings = [f"data.path={data}", *small, *text, "train.checkpoint_every=2"]
    assert train_app.main(["--config", "tiny.yaml", "--run", str(path), *settings]) == 0
    return path


def test_items_are_written_fused_and_view_by_view_and_users_after_their_latest_events(
    run: Path, tmp_path: Path
) -> None:
    before, out = files_of(run.parent), tmp_path / "vectors"
    assert embed.main(["--run", str(run), "--out", str(out)]) == 0
    assert files_of(run.parent) == before
    tables = {file.name: parquet.read_table(file) for file in out.iterdir()}
    with start() as runtime:
        assembly = load_run(run, runtime)
        retrieval = assembly.retrieval()
        seqs = histories(assembly.dataset.interactions, before_part=TEST + 1)
        states = retrieval.users(np.arange(1, 5), seqs)
        rows = np.arange(7)
        with evaluating(assembly.model):
            items = encode_items(assembly.model, assembly.collator, rows, runtime.device)
    wanted = {
        "items.parquet": ([1, 2, 3, 4, 5, 6], items.row),
        "items.features.parquet": ([1, 2, 3, 4, 5, 6], items.views[0]),
        "items.title.parquet": ([1, 2, 4, 5, 6], items.views[1]),
        "users.parquet": ([1, 2, 3, 4], torch.cat([states[:1], states])),
    }
    assert tables.keys() == wanted.keys()
    for name, (at, vectors) in wanted.items():
        table, letter = tables[name], name[0]
        assert table.schema.field("vector").type == pa.list_(pa.float32(), 8), name
        assert table["id"].to_pylist() == [f"{letter}{row}" for row in at]
        found = np.stack(table["vector"].to_numpy())
        np.testing.assert_allclose(found, vectors[at].detach().numpy(), atol=1e-6)


def test_a_folder_that_is_there_is_left_alone(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("here")
    assert embed.main(["--run", str(run), "--out", str(tmp_path)]) == 2
    told = f"--out {tmp_path}: is there already; allowed: a folder that is not"
    assert told in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_shares_of_all_ranks_make_the_blocks(world_size: int) -> None:
    entity, device = tiny.dataset().items, torch.device("cpu")
    every = [
        list(embed.blocks(entity, Runtime(rank, rank, world_size, device), size=2))
        for rank in range(world_size)
    ]
    found = []
    for of_ranks in zip(*every, strict=True):
        rows = of_ranks[0][0]
        assert len({len(own) for _, own in of_ranks}) == 1
        assert np.concatenate([own for _, own in of_ranks])[: len(rows)].tolist() == rows.tolist()
        found += rows.tolist()
    assert found == list(range(1, 9))
