"""Runs trained for a benchmark, each in a process and a folder of its own.

Example:
    runs = Runs(config=Path("ranking.yaml"), folder=Path("data/quality/runs"))
    with start() as runtime:
        assembly = load_run(runs.trained(Path("data/ml-100k"), {"train.steps": 20}, 0), runtime)
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flm_apps.run_folder import read_report
from flm_benchmarks.harness import torchrun

from flm_torchrec.config import RunConfig
from flm_torchrec.typed_yaml import load_yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Trainings by one configuration, which differ in data, setting and seed."""

    config: Path
    folder: Path
    steps: int | None = None  # in place of what is configured
    ranks: int = 1

    @property
    def version(self) -> str:
        """A hash of the configuration's content."""
        told = hashlib.sha256(self.config.read_bytes()).hexdigest()[:12]
        told = told if self.steps is None else f"{told}, {self.steps} steps"
        return told if self.ranks == 1 else f"{told}, {self.ranks} ranks"

    def overrides(self, data: Path, setting: Mapping[str, Any], seed: int) -> list[str]:
        """A setting as the command line takes it."""
        told = {"data.path": str(data), "train.seed": seed} | dict(setting)
        told |= {} if self.steps is None else {"train.steps": self.steps}
        return [f"{key}={json.dumps(value)}" for key, value in told.items()]

    def read(self, data: Path, setting: Mapping[str, Any], seed: int) -> RunConfig:
        """The configuration of one of them."""
        return load_yaml(self.config, RunConfig, self.overrides(data, setting, seed))

    def folder_of(self, data: Path, setting: Mapping[str, Any], seed: int) -> Path:
        """Where one of them is, or will be."""
        told = json.dumps([self.version, *self.overrides(data, setting, seed)])
        return self.folder / hashlib.sha256(told.encode()).hexdigest()[:12]

    def trained(self, data: Path, setting: Mapping[str, Any], seed: int) -> Path:
        """The folder of a run, trained unless it is; what was cut off goes on where it stopped."""
        given, run = self.overrides(data, setting, seed), self.folder_of(data, setting, seed)
        if "seconds" not in read_report(run):
            command = [sys.executable, "-m"] if self.ranks == 1 else torchrun(self.ranks)
            command += ["flm_apps.train", "--config", str(self.config), "--run", str(run)]
            subprocess.run([*command, "--resume", *given], check=True)
        return run
