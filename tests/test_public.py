"""The names that `flm_torchrec` itself gives, and that asking for them is what loads them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flm_torchrec


def heavy_after(code: str) -> list[str]:
    """The heavy packages that a fresh interpreter has loaded after `code`."""
    told = "import sys; print([n for n in ('torch', 'torchrec', 'pandas') if n in sys.modules])"
    command = [sys.executable, "-c", f"{code}\n{told}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return ast.literal_eval(done.stdout)


@pytest.mark.parametrize("name", flm_torchrec.__all__)
def test_every_public_name_resolves_to_what_its_module_calls_so(name):
    found = getattr(flm_torchrec, name)
    assert found.__name__ == name
    assert found.__module__.startswith("flm_torchrec.")
    assert getattr(flm_torchrec, name) is found


def test_importing_the_package_imports_no_torch():
    assert heavy_after("import flm_torchrec; dir(flm_torchrec)") == []


def test_asking_for_a_name_loads_only_what_it_needs():
    assert heavy_after("from flm_torchrec import load_yaml") == []
    assert "torch" in heavy_after("from flm_torchrec import FLM")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'flm_torchrec' has no attribute 'FLN'"):
        _ = flm_torchrec.FLN


def test_names_are_listed_for_people_and_for_type_checkers():
    assert set(flm_torchrec.__all__) <= set(dir(flm_torchrec))
    tree = ast.parse(Path(flm_torchrec.__file__).read_text())
    typed = {
        (alias.name, node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
        for alias in node.names
    }
    lazy = {(name, f"flm_torchrec.{module}") for name, module in flm_torchrec._MODULE_OF.items()}
    assert typed == lazy
    assert {name for name, _ in lazy} == set(flm_torchrec.__all__)
