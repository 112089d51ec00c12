import io
import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flm_torchrec.training.log import RunLog


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_values_go_to_the_file_and_to_tensorboard(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, 2)
    log.step(1, {"loss/rank": 2.0, "loss/like": 0.5})
    log.step(2, {"loss/rank": 1.5, "loss/like": 0.25})
    log.step(2, {"validation/hr@10": 0.125})
    log.close()
    assert lines(tmp_path) == [
        {"step": 1, "loss/rank": 2.0, "loss/like": 0.5},
        {"step": 2, "loss/rank": 1.5, "loss/like": 0.25},
        {"step": 2, "validation/hr@10": 0.125},
    ]
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in board.Scalars("loss/like")] == [(1, 0.5), (2, 0.25)]
    assert [(e.step, e.value) for e in board.Scalars("validation/hr@10")] == [(2, 0.125)]


def test_what_is_quiet_is_written_and_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = RunLog(tmp_path, 0, 2)
    log.step(2, {"view/title/uniformity": -3.0}, quiet=True)
    log.tell("warning: look")
    log.close()
    assert lines(tmp_path) == [{"step": 2, "view/title/uniformity": -3.0}]
    assert capsys.readouterr().out == "warning: look\n"


def test_other_ranks_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = RunLog(tmp_path, 1, 2)
    log.step(1, {"loss/rank": 2.0})
    log.tell("warning")
    log.close()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_resuming_drops_the_lines_of_later_steps(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, 4)
    for step in (1, 2, 3):
        log.step(step, {"loss/rank": float(step)})
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "loss/ra')  # what a crash leaves
    log = RunLog(tmp_path, 0, 4, start=2)
    log.step(3, {"loss/rank": 30.0})
    log.close()
    assert [line["loss/rank"] for line in lines(tmp_path)] == [1.0, 2.0, 30.0]
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.value for e in board.Scalars("loss/rank")] == [1.0, 2.0, 30.0]


def test_a_new_run_begins_the_log_anew(tmp_path: Path) -> None:
    for loss in (1.0, 2.0):
        log = RunLog(tmp_path, 0, 4)
        log.step(0, {"validation/auc": loss})
        log.close()
    assert [line["validation/auc"] for line in lines(tmp_path)] == [2.0]


def test_elsewhere_than_on_a_terminal_lines_are_few(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = RunLog(tmp_path, 0, 100)
    for step in range(1, 101):
        log.step(step, {"loss": 1.5, "loss/rank": 1.0, "loss/like": 5.0})
    log.close()
    lines = capsys.readouterr().out.splitlines()
    assert 1 <= len(lines) <= 2
    assert lines[-1].startswith("step 100/100  loss 1.5000  ")
    assert lines[-1].endswith(":00 left")


def test_on_a_terminal_one_line_is_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    log = RunLog(tmp_path, 0, 2)
    for step in range(1, 3):
        log.step(step, {"loss": 1.5, "loss/rank": 1.0, "loss/like": 5.0})
    log.close()
    assert out.getvalue().count("\n") == 1
    assert "\r" in out.getvalue()
    assert "step 2/2  loss 1.5000  " in out.getvalue()
