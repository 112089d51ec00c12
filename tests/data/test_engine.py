"""The same preparation on a Dask cluster."""

import subprocess
import sys

import pytest
from small_data import LOG, write_folder

from flm_torchrec.data.prepare import prepare
from flm_torchrec.data.preparing.engine import dask_mapper
from flm_torchrec.errors import UserError

# In a process of its own: a folder of the tests has the name of Dask's package.
SCRIPT = """
import sys
from dask.distributed import LocalCluster
from flm_torchrec.data.preparing.engine import dask_mapper
from flm_torchrec.data.prepare import prepare
from flm_torchrec.errors import UserError

if __name__ == "__main__":
    with LocalCluster(processes=False, n_workers=2, dashboard_address=None) as cluster:
        for folder in sys.argv[1:]:
            try:
                print(prepare(folder, mapper=dask_mapper(cluster.scheduler_address)).fingerprint)
            except UserError as error:
                print(error)
"""


@pytest.mark.slow
def test_a_dask_cluster_prepares_the_same(tmp_path):
    pytest.importorskip("dask", reason="dask is an engine that one may have")
    (tmp_path / "script.py").write_text(SCRIPT)
    good = write_folder(tmp_path / "good", files=LOG)
    bad = write_folder(tmp_path / "bad", {"interactions.csv": ("3.5", "much")}, LOG)
    command = [sys.executable, tmp_path / "script.py", good, bad]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    fingerprint, error = ran.stdout.splitlines()
    assert fingerprint == prepare(write_folder(tmp_path / "here", files=LOG)).fingerprint
    assert "'much' is not a number" in error
    data, here = prepare(good), prepare(tmp_path / "here")
    assert data.interactions.numbers.tolist() == here.interactions.numbers.tolist()
    assert data.interactions.before.tolist() == here.interactions.before.tolist()


def test_without_dask_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(UserError, match=r"dask is not installed .*; pip install distributed"):
        dask_mapper("tcp://localhost:8786")
