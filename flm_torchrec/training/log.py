"""What a run tells while it trains: log.jsonl, TensorBoard events and progress."""

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from flm_torchrec.files import atomic_file

# Seconds between two tellings of the progress: on a terminal its line is rewritten in place.
_LIVE, _PLAIN = 0.2, 5.0


class RunLog:
    """Writes on rank 0 only; the other ranks may call it and nothing happens.

    `start` is the step that training goes on from: what an earlier attempt logged after it is
    dropped, so every step stands in log.jsonl once. 0 begins the log anew.
    """

    def __init__(self, folder: Path | str, rank: int, steps: int, start: int = 0) -> None:
        self._writes = rank == 0
        if not self._writes:
            return
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _keep_until(folder / "log.jsonl", start)
        self._file = (folder / "log.jsonl").open("a", buffering=1, encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
        self._progress = _Progress(start, steps)

    def step(self, step: int, values: Mapping[str, float], *, quiet: bool = False) -> None:
        """Log the values of `step`; the one called "loss" is shown in the progress.

        Values without it, such as a validation's, get a line of their own, unless `quiet`.
        """
        if not self._writes:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        if "loss" in values:
            self._progress.update(step, values["loss"])
        elif not quiet:
            told = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
            self._progress.tell(f"step {step}  {told}")

    def tell(self, line: str) -> None:
        """Show a line beside the progress."""
        if self._writes:
            self._progress.tell(line)

    def close(self) -> None:
        """Finish the files and the line of progress."""
        if self._writes:
            self._progress.end_line()
            self._file.close()
            self._board.close()


class _Progress:
    def __init__(self, start: int, steps: int) -> None:
        self._start, self._steps = start, steps
        self._is_live = sys.stdout.isatty()
        self._line_is_open = False
        self._began, self._told = time.monotonic(), -math.inf

    def update(self, step: int, loss: float) -> None:
        now = time.monotonic()
        if now - self._told < (_LIVE if self._is_live else _PLAIN) and step < self._steps:
            return
        self._told = now
        rate = (step - self._start) / max(now - self._began, 1e-9)
        left = round((self._steps - step) / max(rate, 1e-9))
        line = (
            f"step {step}/{self._steps}  loss {loss:.4f}  {rate:.1f} steps/s  "
            f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
        )
        if self._is_live:
            print(f"\r\033[K{line}", end="", flush=True)
            self._line_is_open = True
        else:
            print(line, flush=True)

    def tell(self, line: str) -> None:
        self.end_line()
        print(line, flush=True)

    def end_line(self) -> None:
        if self._line_is_open:
            print(flush=True)
            self._line_is_open = False


def _keep_until(path: Path, step: int) -> None:
    """Drop the lines of later steps, and a last line that was cut off while being written."""
    if not path.exists():
        return
    lines = [line for line in path.read_text("utf-8").splitlines(keepends=True) if "\n" in line]
    kept = [line for line in lines if step and json.loads(line)["step"] <= step]
    with atomic_file(path) as temporary:
        temporary.write_text("".join(kept), "utf-8")
