"""What the apps on ranks share: a trained run loaded, and the memory that a job took."""

import resource
from pathlib import Path

import torch
from flm_apps.run_folder import run_config

from flm_torchrec.assemble import Assembly, assemble
from flm_torchrec.errors import UserError
from flm_torchrec.training import checkpoint
from flm_torchrec.training.runtime import Runtime, all_gather


def load_run(run: Path, runtime: Runtime) -> Assembly:
    """A trained run with the weights of its last checkpoint; called by all ranks."""
    config = run_config(run)
    last = checkpoint.latest(run / "checkpoints")
    if last is None:
        raise UserError(f"--run {run}: holds no checkpoint, so there is nothing to score with")
    assembly = assemble(config, runtime, training=False)
    assembly.check_data(last)
    matched = checkpoint.load_matching(last, assembly.dmp)
    if matched.fresh:
        raise UserError(f"{last}: lacks {matched.fresh[0]}, which the run's config.yaml asks for")
    assembly.refresh_text(keep=True)
    return assembly


def peak_memory_gib(runtime: Runtime) -> float:
    """The most main memory that a process of the job has held so far; called by all ranks."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return float(all_gather(torch.tensor([peak])).max())
