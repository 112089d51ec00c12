"""A run's folder: its configuration, its checkpoints and its growing report."""

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from flm_torchrec.config import RunConfig
from flm_torchrec.errors import UserError
from flm_torchrec.evaluation.report import write_report
from flm_torchrec.typed_yaml import load_yaml

BUNDLED = Path(__file__).parent / "configs"
PACKAGES = ("torch", "torchrec", "transformers", "torchx", "numpy")


def config_file(name: str) -> Path:
    """A file of the user's, or one of the bundled configurations, with or without its ending."""
    for path in (Path(name), BUNDLED / name, BUNDLED / f"{name}.yaml"):
        if path.is_file():
            return path
    bundled = sorted(path.name for path in BUNDLED.glob("*.yaml"))
    raise UserError(f"--config {name}: no such file; bundled are {', '.join(bundled)}")


def run_config(run: Path) -> RunConfig:
    """The configuration that a run was trained with."""
    if not (run / "config.yaml").is_file():
        raise UserError(f"--run {run}: holds no config.yaml, so no run was trained there")
    return load_yaml(run / "config.yaml", RunConfig)


def read_report(run: Path) -> dict[str, Any]:
    """What is reported so far; {} before the first entry."""
    file = run / "report.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def add_to_report(run: Path, entries: dict[str, Any]) -> None:
    """Merge `entries` into the run's report, mappings key by key."""
    report = read_report(run)
    for name, entry in entries.items():
        both = isinstance(entry, dict) and isinstance(report.get(name), dict)
        report[name] = {**report[name], **entry} if both else entry
    write_report(run, report)


def setting() -> dict[str, Any]:
    """Versions and machine."""
    fbgemm = [
        f"{name} {metadata.version(name)}"
        for name in ("fbgemm-gpu-cpu", "fbgemm-gpu")
        if any(True for _ in metadata.distributions(name=name))
    ]
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in PACKAGES},
            "fbgemm": ", ".join(fbgemm),
        },
        "machine": {
            "processor": platform.machine(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
        },
    }
