"""`flm doctor`: what it finds wrong, and that it says how to repair it."""

import json
import math
import re
import sys
import tomllib
from pathlib import Path

import pytest
from flm_apps.doctor import main

from flm_torchrec.planning import machine
from flm_torchrec.planning.doctor import check_training, read_probe
from flm_torchrec.planning.environment import (
    VERSIONS,
    check_fbgemm,
    check_python,
    check_requirements,
    check_transformers,
    check_version,
)
from flm_torchrec.planning.machine import (
    at_least,
    available_memory,
    check_torchrun,
    container_memory,
    free_space,
)

ROOT = Path(__file__).parent.parent
CPU, GPU = {"fbgemm-gpu-cpu": "1.8.0"}, {"fbgemm-gpu": "1.8.0"}
CPU_TORCH, GPU_TORCH = {"torch": "2.13.0+cpu"}, {"torch": "2.13.0+cu130"}


def test_this_environment_passes_and_is_printed_as_json(capsys):
    assert main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"]
    names = [check["name"] for check in report["checks"]]
    assert names == [
        "python", "torch", "fbgemm", "torchrec", "torchmetrics", "torchx", "transformers",
        "requirements",
        "training", "gloo", "cuda", "nccl",
        "cores", "memory", "disk", "shared memory", "open files", "torchrun",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 10, 9), "FAIL"), ((3, 11, 0), "ok"), ((3, 12, 9), "ok"), ((3, 13, 0), "FAIL")],
)
def test_only_python_3_11_and_3_12_pass(version, status):
    assert check_python(version).status == status


def test_a_local_build_of_the_right_torch_passes():
    assert check_version("torch", CPU_TORCH).status == "ok"


@pytest.mark.parametrize("name", ["torch", "torchrec", "torchmetrics", "torchx"])
@pytest.mark.parametrize("installed", [{}, dict.fromkeys(VERSIONS, "2.1")])
def test_a_missing_or_other_version_fails_with_its_repair(name, installed):
    check = check_version(name, installed)
    assert check.status == "FAIL"
    assert check.repair
    assert check.repair.startswith(f"{sys.executable} -m pip install ")
    assert check.repair.endswith(f"{name}=={VERSIONS[name]}")


def test_torchrec_is_repaired_without_its_requirements():
    assert "--no-deps" in (check_version("torchrec", {}).repair or "")


@pytest.mark.parametrize(
    ("installed", "has_gpu", "status"),
    [
        (CPU | CPU_TORCH, False, "ok"),
        (GPU | GPU_TORCH, True, "ok"),
        (CPU | GPU_TORCH, False, "ok"),
        (CPU | CPU_TORCH, True, "warn"),
        (GPU | CPU_TORCH, True, "FAIL"),
        (GPU | GPU_TORCH, False, "FAIL"),
        (CPU | GPU | CPU_TORCH, False, "FAIL"),
        (CPU | GPU | GPU_TORCH, True, "FAIL"),
        ({"fbgemm-gpu-cpu": "1.7.0"} | CPU_TORCH, False, "FAIL"),
        ({"fbgemm-gpu": "1.8.0+cpu"} | CPU_TORCH, False, "ok"),
        ({"fbgemm-gpu": "1.7.0+cpu"} | CPU_TORCH, False, "FAIL"),
        ({"fbgemm-gpu": "1.8.0+cu130"} | GPU_TORCH, True, "ok"),
        ({"fbgemm-gpu": "1.8.0+cu126"} | GPU_TORCH, True, "FAIL"),
        (GPU | {"torch": "2.13.0"}, True, "ok"),
        (CPU_TORCH, False, "FAIL"),
    ],
)
def test_fbgemm_must_be_the_one_build_that_fits(installed, has_gpu, status):
    check = check_fbgemm(installed, has_gpu=has_gpu)
    assert check.status == status
    assert (check.repair is not None) == (status == "FAIL")


@pytest.mark.parametrize("installed", [GPU | CPU_TORCH, CPU | GPU | CPU_TORCH])
def test_what_a_plain_install_of_torchrec_breaks_is_explained_and_repaired(installed):
    check = check_fbgemm(installed, has_gpu=False)
    assert "plain `pip install torchrec`" in check.detail
    assert re.search(
        r"uninstall -y fbgemm-gpu fbgemm-gpu-cpu && .* fbgemm-gpu-cpu==1.8.0$", check.repair or ""
    )


@pytest.mark.parametrize(
    ("version", "status"), [("4.57.0", "FAIL"), ("5.1.0", "ok"), ("6.0.0", "FAIL")]
)
def test_only_transformers_5_passes(version, status):
    assert check_transformers({"transformers": version}).status == status


def test_missing_requirements_are_named_and_extras_are_not_required():
    lines = ["torch==2.13.0", "pydantic>=2", "Some_Thing<3", 'ruff; extra == "dev"']
    check = check_requirements({"pydantic": "2.1"}, lines)
    assert check.status == "FAIL"
    assert check.repair == f"{sys.executable} -m pip install 'Some_Thing<3'"
    assert check_requirements({"pydantic": "2.1", "some-thing": "1"}, lines).status == "ok"


def test_nothing_is_loaded_from_an_environment_known_to_be_broken():
    (check,) = check_training([check_version("torch", {})], has_gpu=False)
    assert check.status == "warn"
    assert check.detail == "not tried: first repair torch"


def test_a_probe_that_does_not_learn_or_communicate_fails():
    seen = {"before": 1.0, "after": 1.0, "gloo": False, "nccl": False, "cuda": []}
    checks = read_probe(seen, "repair it", has_gpu=True)
    assert [(check.name, check.status) for check in checks] == [
        ("training", "FAIL"), ("gloo", "FAIL"), ("cuda", "FAIL"), ("nccl", "FAIL"),
    ]  # fmt: skip
    assert all(check.repair == "repair it" for check in checks)


@pytest.mark.parametrize(("found", "status"), [(8, "ok"), (6, "ok"), (5.9, "warn"), (1, "FAIL")])
def test_a_resource_fails_only_where_nothing_runs(found, status):
    check = at_least("memory", found, 6, 2, "GiB", "ps")
    assert check.status == status
    assert (check.repair is not None) == (status != "ok")


def cgroup(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{text}\n")
    return folder


@pytest.mark.parametrize(
    ("limit", "used", "cached", "left"),
    [(8, 5, 0, 3), (8, 5, 2, 5), (8, 8, 0, 0), (8, 9, 0, 0)],
)
def test_a_container_leaves_its_limit_less_what_it_holds(limit, used, cached, left, tmp_path):
    gib = 2**30
    new = {
        "memory.max": f"{limit * gib}",
        "memory.current": f"{used * gib}",
        "memory.stat": f"anon 5\ninactive_file {cached * gib}",
    }
    assert container_memory(cgroup(tmp_path, new)) == left
    old = {
        "memory/memory.limit_in_bytes": f"{limit * gib}",
        "memory/memory.usage_in_bytes": f"{used * gib}",
        "memory/memory.stat": f"cache 5\ntotal_inactive_file {cached * gib}",
    }
    (tmp_path / "old").mkdir()
    assert container_memory(cgroup(tmp_path / "old", old)) == left


def test_without_a_limit_a_container_leaves_what_the_machine_has(tmp_path):
    assert container_memory(tmp_path) == math.inf
    unlimited = {"memory.max": "max", "memory.current": "5", "memory.stat": "anon 5"}
    assert container_memory(cgroup(tmp_path, unlimited)) == math.inf


def test_too_little_memory_says_what_to_do(monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 1.0)
    (check,) = [check for check in machine.check_machine() if check.name == "memory"]
    assert check.status == "FAIL"
    assert check.repair
    assert check.repair.startswith("end other programs, or give the container more")


def test_memory_and_disk_are_measured():
    assert available_memory() > 0
    assert free_space(".") > 0
    assert free_space("/no/such/folder") == 0


def test_a_torchrun_outside_of_path_warns_with_the_path_to_set(tmp_path):
    folder = Path(sys.executable).parent
    assert check_torchrun(str(folder)).status == "ok"
    check = check_torchrun(str(tmp_path))
    assert check.status == "warn"
    assert check.repair == f'export PATH={folder}:"$PATH"'


def test_versions_agree_with_what_is_installed_by_pyproject_and_makefile():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pinned = dict(line.split("==") for line in project["dependencies"] if "==" in line)
    assert pinned == {name: VERSIONS[name] for name in ("torch", "torchmetrics", "torchx")}
    assert "transformers>=5,<6" in project["dependencies"]
    assert extras["cpu"] == [f"fbgemm-gpu-cpu=={VERSIONS['fbgemm']}"]
    assert extras["gpu"] == [f"fbgemm-gpu=={VERSIONS['fbgemm']}"]
    assert f"torchrec=={VERSIONS['torchrec']} " in (ROOT / "Makefile").read_text()
