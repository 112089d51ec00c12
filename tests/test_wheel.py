"""The built wheel holds everything, and works where only it is installed."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"flm_torchrec": "flm_torchrec", "apps": "flm_apps", "benchmarks": "flm_benchmarks"}


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | environment
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=env)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    # A copy: building in place leaves a build folder whose old files would enter the next wheel.
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    built = run(*pip, "--wheel-dir", out, source)
    assert built.returncode == 0, built.stderr
    (path,) = out.glob("flm_torchrec-*-py3-none-any.whl")
    return path


def test_the_wheel_holds_every_module_and_configuration_and_no_test(wheel):
    expected = {
        str(Path(FOLDERS[folder]) / path.relative_to(ROOT / folder))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml")
    }
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith("/LICENSE") for name in names)


def test_the_wheel_registers_the_command_and_the_components(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    lines = archive.read(name).decode().splitlines()
    assert "flm = flm_torchrec.cli:main" in lines
    assert "flm = flm_torchrec.components" in lines
    assert "_torchx_builtins = torchx.components" in lines


def test_the_installed_wheel_works_from_an_empty_folder(wheel, tmp_path, monkeypatch):
    target, empty = tmp_path / "target", tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    pip = run(sys.executable, "-m", "pip", "install", "--no-deps", "--target", target, wheel)
    assert pip.returncode == 0, pip.stderr
    code = "import flm_torchrec as a, flm_apps as b, flm_benchmarks.sharding as c;"
    where = run(
        sys.executable,
        "-c",
        f"{code} print(a.__file__, b.__file__, c.__file__)",
        PYTHONPATH=str(target),
    )
    assert all(Path(path).is_relative_to(target) for path in where.stdout.split()), where.stderr
    assert len(where.stdout.split()) == 3
    usage = run(target / "bin/flm", "--help", PYTHONPATH=str(target))
    assert usage.stdout.startswith("usage: flm VERB"), usage.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="breaks CPU machines only")
@pytest.mark.timeout(1800)
def test_the_doctor_explains_and_repairs_a_plain_install_of_torchrec(wheel, tmp_path):
    python = tmp_path / "venv/bin/python"
    assert run(sys.executable, "-m", "venv", tmp_path / "venv").returncode == 0
    # What a plain `pip install torchrec` ends in; its own requirements are left to the doctor.
    for packages in (
        ["torch==2.13.0"],
        ["--no-deps", "torchrec==1.8.0", "fbgemm-gpu==1.8.0", wheel],
    ):
        installed = run(python, "-m", "pip", "install", *packages)
        assert installed.returncode == 0, installed.stderr
    doctor = [python.parent / "flm", "doctor", "--json"]
    seen = run(*doctor)
    assert seen.returncode == 1, seen.stderr
    checks = {check["name"]: check for check in json.loads(seen.stdout)["checks"]}
    assert checks["fbgemm"]["status"] == "FAIL"
    assert "plain `pip install torchrec`" in checks["fbgemm"]["detail"]
    assert checks["training"]["status"] == "warn"
    for check in checks.values():
        if check["status"] == "FAIL":
            repaired = run("bash", "-c", check["repair"])
            assert repaired.returncode == 0, repaired.stderr
    seen = run(*doctor)
    assert seen.returncode == 0, seen.stdout
