"""Checks of what is installed, by its metadata alone: nothing is imported that could be broken.

Example:
    installed = installed_versions()
    check_fbgemm(installed, has_gpu=False)
"""

import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata

from flm_torchrec.planning.check import Check

# torch, fbgemm and torchrec are a triple of one release; torchrec asks for this torchmetrics.
VERSIONS = {
    "torch": "2.13.0",
    "fbgemm": "1.8.0",
    "torchrec": "1.8.0",
    "torchmetrics": "1.0.3",
    "torchx": "0.7.0",
}
_CHECKED = {*VERSIONS, "transformers"}
PIP = f"{shlex.quote(sys.executable)} -m pip"
_PLAIN = "a plain `pip install torchrec` brings it, since torchrec requires the GPU build by name"


def check_environment(*, has_gpu: bool) -> list[Check]:
    """Python and every package this one is built on."""
    installed = installed_versions()
    us = "flm-torchrec"
    requirements = metadata.requires(us) or () if us in installed else (us,)
    return [
        check_python(sys.version_info[:3]),
        check_version("torch", installed),
        check_fbgemm(installed, has_gpu=has_gpu),
        check_version("torchrec", installed),
        check_version("torchmetrics", installed),
        check_version("torchx", installed),
        check_transformers(installed),
        check_requirements(installed, requirements),
    ]


def installed_versions() -> dict[str, str]:
    """Version of every installed distribution, by its normalised name."""
    return {_normal(found.name): found.version for found in metadata.distributions()}


def check_python(version: tuple[int, ...]) -> Check:
    """Python 3.11 or 3.12."""
    detail = ".".join(map(str, version))
    if (3, 11) <= version < (3, 13):
        return Check("python", "ok", detail)
    return Check("python", "FAIL", f"{detail}; needs 3.11 or 3.12", "python3.11 -m venv .venv")


def check_version(name: str, installed: Mapping[str, str]) -> Check:
    """The exact version this package is built on."""
    wanted, found = VERSIONS[name], installed.get(name)
    if found and _release(found) == wanted:
        return Check(name, "ok", found)
    no_deps = "--no-deps " if name == "torchrec" else ""
    detail = f"{found or 'not installed'}; needs {wanted}"
    return Check(name, "FAIL", detail, f"{PIP} install {no_deps}{name}=={wanted}")


def check_fbgemm(installed: Mapping[str, str], *, has_gpu: bool) -> Check:
    """Exactly one build of fbgemm, of the right version, that fits the machine and torch."""
    names = ("fbgemm-gpu-cpu", "fbgemm-gpu")
    builds = {name: installed[name] for name in names if name in installed}
    torch = installed.get("torch", "")
    wanted = fbgemm_requirement(installed, has_gpu=has_gpu)
    repair = f"{PIP} uninstall -y fbgemm-gpu fbgemm-gpu-cpu && {PIP} install --no-deps {wanted}"
    # PyTorch's own index calls its CPU build fbgemm-gpu, of a version that ends with +cpu.
    kinds = {
        name: "CPU" if name == "fbgemm-gpu-cpu" or _build(version) == "cpu" else "GPU"
        for name, version in builds.items()
    }
    detail = " and ".join(f"{builds[name]} ({kind} build)" for name, kind in kinds.items())
    if not builds:
        return Check("fbgemm", "FAIL", f"not installed; needs {wanted}", repair)
    if len(builds) > 1:
        return Check("fbgemm", "FAIL", f"{detail} overwrite each other: {_PLAIN}", repair)
    ((name, version),) = builds.items()
    is_cpu, is_cpu_torch = kinds[name] == "CPU", _build(torch) == "cpu"
    if not is_cpu and (is_cpu_torch or not has_gpu):
        where = (
            "with a CPU build of torch" if is_cpu_torch else "on a machine without an NVIDIA GPU"
        )
        return Check("fbgemm", "FAIL", f"{detail} does not load {where}: {_PLAIN}", repair)
    if _release(version) != VERSIONS["fbgemm"]:
        return Check("fbgemm", "FAIL", f"{detail}; needs {wanted}", repair)
    cudas = {build for build in map(_build, (version, torch)) if build.startswith("cu")}
    if not is_cpu and len(cudas) > 1:
        told = f"{detail} is built for another CUDA than torch {torch}"
        return Check("fbgemm", "FAIL", told, reinstall_command(has_gpu=has_gpu))
    if is_cpu and has_gpu:
        return Check("fbgemm", "warn", f"{detail}: the GPU of this machine stays idle")
    return Check("fbgemm", "ok", detail)


def fbgemm_requirement(installed: Mapping[str, str], *, has_gpu: bool) -> str:
    """The build of fbgemm that fits the machine and the installed torch."""
    cpu_torch = _build(installed.get("torch", "")) == "cpu"
    build = "fbgemm-gpu" if has_gpu and not cpu_torch else "fbgemm-gpu-cpu"
    return f"{build}=={VERSIONS['fbgemm']}"


def reinstall_command(*, has_gpu: bool) -> str:
    """Installs torch, fbgemm and torchrec again, over whatever is there."""
    fbgemm = fbgemm_requirement(installed_versions(), has_gpu=has_gpu)
    triple = f"torch=={VERSIONS['torch']} {fbgemm} torchrec=={VERSIONS['torchrec']}"
    return f"{PIP} install --force-reinstall --no-deps {triple}"


def check_transformers(installed: Mapping[str, str]) -> Check:
    """Any release of transformers 5."""
    found = installed.get("transformers")
    if found and found.startswith("5."):
        return Check("transformers", "ok", found)
    detail = f"{found or 'not installed'}; needs >=5,<6"
    return Check("transformers", "FAIL", detail, f"{PIP} install 'transformers>=5,<6'")


def check_requirements(installed: Mapping[str, str], requirements: Iterable[str]) -> Check:
    """Every other requirement outside an extra is installed, in whatever version.

    Those of one exact version are in VERSIONS and have a check of their own.
    """
    names = {line: _normal(re.split(r"[^\w.-]", line)[0]) for line in requirements}
    needed = [line for line in names if "extra ==" not in line and names[line] not in _CHECKED]
    missing = [line for line in needed if names[line] not in installed]
    if missing:
        wanted = " ".join(map(shlex.quote, missing))
        return Check("requirements", "FAIL", f"missing: {wanted}", f"{PIP} install {wanted}")
    return Check("requirements", "ok", f"all {len(needed)} installed")


def _release(version: str) -> str:
    return version.partition("+")[0]


def _build(version: str) -> str:
    """What follows the plus of "2.13.0+cu130"; "" without one."""
    return version.partition("+")[2]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
