"""A rank that is killed under TorchX: the job is restarted, and ends as if nothing had been."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from checkpoints import whole
from flm_apps.run_folder import config_file
from flm_apps.train import run_training
from small_data import write_folder
from two_ranks.pool import Ranks

from flm_torchrec.assemble import assemble
from flm_torchrec.config import RunConfig
from flm_torchrec.training.runtime import Runtime
from flm_torchrec.typed_yaml import load_yaml

STEPS = 40


def settings(data: Path) -> list[str]:
    small = ["data.users=2", "data.window=3", "views.width=8", f"data.path={data}"]
    return [*small, f"train.steps={STEPS}", "train.checkpoint_every=2", "train.keep=1"]


def undisturbed(runtime: Runtime, data: Path, run: Path) -> None:
    config = load_yaml(config_file("tiny.yaml"), RunConfig, settings(data))
    run_training(assemble(config, runtime), run, resume=False)


def rank_of(run: Path, rank: int) -> int | None:
    """The process that is a rank of the job that trains `run`."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            started = (process / "cmdline").read_bytes().split(b"\0")
            environment = (process / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is another user's
            continue
        if str(run).encode() in started and f"RANK={rank}".encode() in environment:
            return int(process.name)
    return None


def test_a_killed_rank_is_started_again_and_resumes(ranks: Ranks, tmp_path: Path) -> None:
    data, run = write_folder(tmp_path / "data"), tmp_path / "killed"
    ranks.run(undisturbed, data, tmp_path / "whole")
    torchx = str(Path(sys.executable).parent / "torchx")
    job = ["run", "-s", "local_cwd", "flm.pretrain", "--config", "tiny.yaml", "--run", str(run)]
    command = [torchx, *job, "-j", "1x2", "--max_retries", "1", *settings(data)]
    with (tmp_path / "output").open("wb") as output:
        started = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output)
        try:
            until, process = time.monotonic() + 120, None
            while process is None or not list(run.glob("checkpoints/step-*/meta.json")):
                assert started.poll() is None, (tmp_path / "output").read_text()
                assert time.monotonic() < until
                process = rank_of(run, 1) if process is None else process
                time.sleep(0.02)
            os.kill(process, signal.SIGKILL)
            code = started.wait(120)
        finally:
            started.terminate()
            started.wait()
    told = (tmp_path / "output").read_text()
    assert code == 0, told
    assert told.count("resume from") == 1
    last = Path("checkpoints") / f"step-{STEPS:08d}"
    one, other = whole(tmp_path / "whole" / last, tmp_path), whole(run / last, tmp_path)
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
