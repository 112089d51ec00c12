"""`flm checkpoint` on a small run, and what resuming does about checkpoints that are damaged."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from checkpoints import whole
from flm_apps import checkpoint as app
from flm_apps import train as train_app
from small_data import write_folder

from flm_torchrec.cli import main

SMALL = ("data.users=2", "data.window=3", "views.width=8", "train.checkpoint_every=2")
LAST = Path("checkpoints") / "step-00000006"


def train(run: Path, data: Path, *arguments: str) -> int:
    given = [*SMALL, "train.steps=6", "train.keep=3", f"data.path={data}", *arguments]
    return train_app.main(["--config", "tiny.yaml", "--run", str(run), *given])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    assert train(run, data) == 0
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def without_checksums(path: Path) -> None:
    """As checkpoints were written before they had them."""
    marker = json.loads((path / "meta.json").read_text())
    for key in ("files", "saved_at", "world_size", "plan", "column_widths"):
        del marker[key]
    (path / "meta.json").write_text(json.dumps(marker))


def test_list_tells_each_checkpoint_and_whether_it_is_whole(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (run / "checkpoints" / "step-00000002" / "__0_0.distcp").unlink()
    without_checksums(run / "checkpoints" / "step-00000004")
    assert main(["checkpoint", "list", str(run)]) == 0
    told = capfd.readouterr().out.splitlines()
    assert told[0].split() == ["step", "size", "saved", "at", "state"]
    assert told[1].endswith("not whole: __0_0.distcp is missing")
    assert told[2].endswith("whole, without checksums")
    assert told[3].split()[0] == "6"
    assert told[3].endswith("whole")
    assert app.main(["list", str(run / "checkpoints"), "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert rows[2]["bytes"] == sum(file.stat().st_size for file in (run / LAST).iterdir())


def test_inspect_tells_entries_plan_and_world(
    trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["inspect", str(trained), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert (told["step"], told["world_size"]) == (6, 1)
    (table,) = [entry for entry in told["plan"] if entry["table"] == "items_item_id"]
    entries = {entry.pop("entry"): entry for entry in told["entries"]}
    name = f"model.{table['parameter']}"
    rows, dim = table["rows"], table["dim"]
    assert entries[name] == {
        "shape": [rows, dim], "dtype": "float32", "bytes": 4 * rows * dim, "pieces": 1
    }  # fmt: skip
    assert entries.keys() == json.loads((trained / LAST / "meta.json").read_text())["shapes"].keys()
    assert app.main(["inspect", str(trained / LAST)]) == 0
    text = capfd.readouterr().out
    assert f"{name} " in text
    assert "by 1 rank(s)" in text


def test_verify_passes_what_is_as_it_was_written(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["verify", str(run)]) == 0
    assert "all 2 files are as they were written" in capfd.readouterr().out
    without_checksums(run / LAST)
    assert app.main(["verify", str(run / LAST)]) == 0
    assert "before checksums were kept" in capfd.readouterr().out
    rows = run / LAST / "__0_0.distcp"
    rows.write_bytes(rows.read_bytes()[:1000])
    assert app.main(["verify", str(run / LAST)]) == 1
    assert "__0_0.distcp is damaged: 1000 bytes, at least" in capfd.readouterr().out
    assert app.main(["list", str(run)]) == 0
    assert "not whole: __0_0.distcp is damaged" in capfd.readouterr().out
    rows.unlink()
    assert app.main(["verify", str(run / LAST)]) == 1
    assert "__0_0.distcp is missing" in capfd.readouterr().out
    (run / LAST / ".metadata").write_text("junk")
    assert app.main(["verify", str(run / LAST)]) == 1
    assert ".metadata can't be read" in capfd.readouterr().out
    assert app.main(["inspect", str(run / LAST)]) == 2
    assert ".metadata can't be read" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "meta.json"])
@pytest.mark.parametrize("how", ["flipped", "missing", "cut"])
def test_verify_and_a_resume_name_the_file_and_the_resume_goes_on_from_the_one_before(
    name: str,
    how: str,
    run: Path,
    trained: Path,
    data: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file = run / LAST / name
    if how == "missing":
        file.unlink()
    elif how == "cut" or name == "meta.json":
        file.write_bytes(file.read_bytes()[:-20])
    else:
        flip(file)
    assert app.main(["verify", str(run / LAST)]) == 1
    damaged = f"{name} is {'missing' if how == 'missing' else 'damaged'}"
    assert damaged in capfd.readouterr().out
    assert train(run, data, "--resume") == 0
    told = capfd.readouterr().out
    assert f"step-00000006: {damaged}" in told
    assert "resume from" in told
    assert "step-00000004" in told
    assert (run / "checkpoints" / "damaged-step-00000006").is_dir()
    one, other = whole(trained / LAST, tmp_path), whole(run / LAST, tmp_path / "run")
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


def test_a_run_without_a_good_checkpoint_is_not_begun_anew(
    run: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in (run / "checkpoints").iterdir():
        flip(path / "__0_0.distcp")
    assert train(run, data, "--resume") == 2
    error = capfd.readouterr().err
    assert "step-00000006: __0_0.distcp is damaged" in error
    assert "no earlier one" in error
    assert len(list((run / "checkpoints").glob("step-*"))) == 3


def test_a_damaged_stage_1_is_refused(
    run: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flip(run / LAST / "__0_0.distcp")
    assert train(tmp_path / "next", data, f"init={run}") == 2
    assert "step-00000006: __0_0.distcp is damaged" in capfd.readouterr().err


def test_reshard_converts_row_wise_state_and_says_so(
    trained: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, back = tmp_path / "wide" / "checkpoints" / "two", tmp_path / "back" / "ckpt" / "one"
    assert app.main(["reshard", str(trained), "--out", str(out), "--columns", "2"]) == 0
    told = capfd.readouterr().out
    assert "state of items_item_id from 1 column shard to 2 (a copy each)" in told
    assert app.main(["verify", str(out)]) == 0
    assert app.main(["reshard", str(out), "--out", str(back)]) == 0
    assert "items_item_id from 2 column shards to 1 (their mean)" in capfd.readouterr().out
    one, wide, other = (
        whole(path, folder)
        for path, folder in [(trained / LAST, tmp_path), (out, tmp_path), (back, tmp_path)]
    )
    assert one.keys() == other.keys() == wide.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    (name,) = [key for key in one if key.endswith("items_item_id.momentum1")]
    assert torch.equal(wide[name], torch.cat([one[name], one[name]]))
    assert train(tmp_path / "next", data, f"init={back}") == 0
    assert app.main(["reshard", str(trained), "--out", str(back)]) == 2
    assert "is there already" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["list", "{data}"], "holds no checkpoint"),
        (["inspect", "{data}"], "is no checkpoint"),
        (["verify", "{data}/nowhere"], "is no checkpoint"),
        (["reshard", "{run}", "--out", "{data}/new", "--columns", "3"], "--columns: 3"),
    ],
)
def test_what_can_not_be_is_refused(
    arguments: list[str],
    told: str,
    trained: Path,
    data: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    given = [argument.format(data=data, run=trained) for argument in arguments]
    assert app.main(given) == 2
    assert told in capfd.readouterr().err
    assert not (data / "new").exists()
