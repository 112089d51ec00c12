"""Imports point one way, and files and functions stay small."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"flm_torchrec": "flm_torchrec", "apps": "flm_apps", "benchmarks": "flm_benchmarks"}
LEAVES = {"errors", "files", "typed_yaml"}
MODEL = LEAVES | {"data", "views", "model", "tasks", "trainable"}
BUILT = MODEL | {
    "retrieval",
    "config",
    "encoder",
    "build_data",
    "build_cold",
    "build_factors",
    "build_linear",
    "build",
    "training",
}
ALLOWED = {
    "errors": set(),
    "files": set(),
    "typed_yaml": LEAVES,
    "cli": set(),
    "ease": set(),
    "components": {"torchx_job"},
    "torchx_job": {"errors"},
    "config": LEAVES | {"config_data", "config_text"},
    "config_data": LEAVES,
    "config_text": LEAVES,
    "data": LEAVES | {"data"},
    "views": LEAVES | {"data", "ease", "views"},
    "model": LEAVES | {"data", "views"},
    "tasks": LEAVES | {"data", "views", "model", "tasks"},
    "trainable": MODEL - {"trainable"},
    "retrieval": MODEL,
    "encoder": MODEL | {"config"},
    "build_cold": MODEL | {"build_factors"},
    "build_data": LEAVES | {"data", "config"},
    "build_heads": MODEL | {"config", "build_data", "build_linear", "build_factors"},
    "build_factors": MODEL | {"config", "build_data", "build_linear"},
    "build_history": LEAVES | {"data", "views", "config", "build_data"},
    "build_linear": LEAVES | {"data", "views", "model", "config", "build_data"},
    "build_tasks": LEAVES | {"data", "views", "model", "tasks", "config", "build_data"},
    "build": MODEL
    | {
        "config",
        "encoder",
        "build_data",
        "build_heads",
        "build_history",
        "build_linear",
        "build_tasks",
    },
    "build_plan": LEAVES | {"data", "config", "training", "planning"},
    "transfer": LEAVES | {"data", "config"},
    "assemble": BUILT | {"build_plan", "transfer"},
    "grown": BUILT | {"assemble"},
    "diagnosis": BUILT | {"assemble", "evaluation"},
    "measure": BUILT | {"assemble", "evaluation"},
    "measure_hidden": BUILT | {"assemble"},
    "measure_domains": BUILT | {"assemble", "evaluation", "measure"},
    "training": LEAVES | {"data.batch", "training"},
    "evaluation": LEAVES | {"ease", "evaluation"},
    "planning": LEAVES | {"training", "planning"},
}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                folder = path.relative_to(ROOT).parts[: -node.level]
                above = ".".join([PACKAGES[folder[0]], *folder[1:]])
                module = f"{above}.{node.module}" if node.module else above
            else:
                module = node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names)


def within(module: str, names: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def layer(path: Path) -> str:
    return path.relative_to(ROOT / "flm_torchrec").parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "path", sources("flm_torchrec"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_imports_point_one_way(path):
    name = layer(path)
    if name == "__init__":
        return
    assert name in ALLOWED, f"{name} has no place in the layer table"
    own = {module for module in imports(path) if module.startswith("flm_torchrec.")}
    inner = {module.removeprefix("flm_torchrec.") for module in own}
    forbidden = {module for module in inner if not within(module, ALLOWED[name])}
    assert not forbidden, f"{name} imports {sorted(forbidden)}"


def test_data_are_read_then_prepared_then_checked():
    order = ["reading", "preparing", "checking"]
    for place, name in enumerate(order):
        later = {f"flm_torchrec.data.{other}" for other in order[place + 1 :]}
        for path in sources(f"flm_torchrec/data/{name}"):
            assert not [module for module in imports(path) if within(module, later)], path


def test_torchx_is_imported_by_the_components_and_their_job_alone():
    found = {
        path
        for path in sources(*PACKAGES)
        if any(within(module, {"torchx"}) for module in imports(path))
    }
    assert found == {ROOT / "flm_torchrec" / name for name in ("components.py", "torchx_job.py")}


def test_the_library_does_not_know_its_apps():
    for path in sources("flm_torchrec"):
        assert not any(
            within(module, {"flm_apps", "flm_benchmarks"}) for module in imports(path)
        ), path


def test_no_file_is_longer_than_300_lines():
    lengths = {path: len(path.read_text().splitlines()) for path in sources(*PACKAGES, "tests")}
    assert {path: length for path, length in lengths.items() if length > 300} == {}


def test_no_function_is_longer_than_60_lines():
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sources(*PACKAGES, "tests")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno >= 60
    ]
    assert long == []
