"""Files and folders that appear whole, and what is left of those that never did."""

import os
import subprocess
from pathlib import Path

import pytest
from small_data import write_folder

from flm_torchrec.data.prepare import prepare
from flm_torchrec.files import atomic_file, atomic_folder


@pytest.fixture
def dead() -> str:
    """The id of a process that is no more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return str(process.pid)


def test_what_a_killed_process_left_goes_when_the_folder_is_prepared_again(
    tmp_path: Path, dead: str
) -> None:
    folder = write_folder(tmp_path)
    ours = str(os.getpid())
    with atomic_folder(folder / "prepared/ab") as one, atomic_file(folder / "splits/x.csv") as two:
        (one / "0.npy").write_text("")
        two.write_text("")
        left = [path.with_name(path.name.replace(ours, dead)) for path in (one, two)]
        left[0].mkdir()
        (left[0] / "0.npy").write_text("")
        left[1].write_text("")
        prepare(folder)
        assert not any(path.exists() for path in left)
        assert one.exists()
        assert two.exists()
