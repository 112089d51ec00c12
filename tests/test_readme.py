"""What README shows runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from small_data import write_folder

README = Path(__file__).parents[1] / "README.md"
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def snippet(heading: str, language: str) -> str:
    """The first block of `language` under a heading."""
    found = re.search(
        rf"^## {heading}\n.*?^```{language}\n(.*?)^```",
        README.read_text(),
        re.MULTILINE | re.DOTALL,
    )
    assert found is not None
    return found[1]


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": PATH},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def test_the_plug_in_snippet_trains_in_under_40_lines(tmp_path: Path) -> None:
    code = snippet("Use it: plug in", "python")
    assert sum(1 for line in code.splitlines() if line.strip()) < 40
    (tmp_path / "plug_in.py").write_text(code)
    losses = re.search(r"loss (\S+) -> (\S+)", run([sys.executable, "plug_in.py"], tmp_path))
    assert losses is not None
    assert float(losses[2]) < 0.1 * float(losses[1])


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder after the commands under "launch", and what they told."""
    folder = tmp_path_factory.mktemp("launched")
    return folder, run(["bash", "-euc", snippet("Use it: launch", "sh")], folder)


def test_the_launch_snippet_trains_and_evaluates_on_two_ranks(launched: tuple[Path, str]) -> None:
    folder, told = launched
    assert (folder / "runs" / "mine" / "report.html").is_file()
    assert "popularity" in told


def test_the_newcomers_snippet_serves_ten_users_and_ten_items(launched: tuple[Path, str]) -> None:
    folder, _ = launched
    run(["bash", "-euc", snippet("New users and items", "sh")], folder)
    users = pd.read_csv(folder / "new-users.csv")
    assert users.groupby("user_id").size().to_dict() == {f"new-{n}": 5 for n in range(1, 11)}
    ways = users.groupby("user_id")["made_by"].first().to_dict()
    rest = {f"new-{n}": "features" for n in range(2, 10)}
    assert ways == {"new-1": "history", "new-10": "popularity", **rest}
    items = pd.read_csv(folder / "new-items.csv")
    assert items["user_id"].nunique() == 943
    assert set(items["item_id"]) <= {f"film-{n}" for n in range(1, 11)}
    assert len(pd.read_parquet(folder / "vectors" / "users.parquet")) == 943
    assert len(pd.read_parquet(folder / "vectors" / "items.parquet")) == 1682


def test_the_data_guide_takes_csv_files_to_recommendations(tmp_path: Path) -> None:
    guide = (README.parent / "docs" / "data.md").read_text()
    folder = write_folder(tmp_path / "data" / "mine")
    schema, commands = (
        re.search(rf"```{kind}\n(.*?)```", guide, re.DOTALL) for kind in ("yaml", "sh")
    )
    assert schema is not None
    assert commands is not None
    (folder / "schema.yaml").write_text(schema[1])
    run(["bash", "-euc", commands[1]], tmp_path)
    assert (tmp_path / "recs.csv").read_text().startswith("user_id,item_id,rank,score,made_by\nu1,")
