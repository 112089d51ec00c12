"""`flm`: verbs, their help, and what is not imported for them."""

import subprocess
import sys
from pathlib import Path

import pytest

from flm_torchrec.cli import _VERBS, main

APPS = Path(__file__).parent.parent / "apps"


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    command = [sys.executable, "-c", code]
    return set(subprocess.run(command, capture_output=True, text=True).stderr.splitlines())


def test_help_lists_every_verb_with_a_line_of_its_own(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for verb, (_, _, text) in _VERBS.items():
        assert f"  {verb:<16}{text}" in lines


def test_no_verb_prints_the_help(capsys):
    assert main([]) == 0
    assert "usage: flm VERB" in capsys.readouterr().out


def test_an_unknown_verb_is_refused_with_the_nearest_name(capsys):
    assert main(["pretain"]) == 2
    assert "no verb 'pretain'; did you mean 'pretrain'?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", _VERBS)
def test_every_verb_has_an_app(verb):
    assert (APPS / f"{_VERBS[verb][0]}.py").exists()


@pytest.mark.parametrize(
    "statement",
    [
        "from flm_torchrec.cli import main; main(['--help'])",
        "import flm_apps.doctor",
        "import flm_apps.data",
        "import flm_apps.checkpoint",
        "import flm_torchrec.components",
    ],
)
def test_torch_is_not_imported_where_it_is_not_needed(statement):
    modules = modules_after(statement)
    assert "flm_torchrec" in modules
    assert not modules & {"torch", "torchrec", "transformers"}
