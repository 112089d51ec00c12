"""Every benchmark in miniature: what is started."""

import shlex
from pathlib import Path

from flm_benchmarks import smoke, text_modes


def test_what_keeps_its_figures_keeps_them_in_the_folder_that_is_made_anew(
    tmp_path: Path, monkeypatch
) -> None:
    files: list[Path] = []

    def measured(same: object, runs: object, file: Path, *, until: float):
        if until > 0:  # of the others it is only read what is there
            files.append(file)

    monkeypatch.setattr(text_modes, "measured", measured)
    _, _, _, *given = shlex.split(smoke.commands(tmp_path)["text_modes"])
    text_modes.main(given)
    assert len(files) == len(smoke.TRIED_MODES.split())
    assert all(file.is_relative_to(tmp_path) for file in files)
    for name in ("precision", "data", "quality"):
        given = shlex.split(smoke.commands(tmp_path)[name])
        assert Path(given[given.index("--work") + 1]).is_relative_to(tmp_path)
