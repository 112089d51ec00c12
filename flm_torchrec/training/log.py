"""What a run tells while it trains: log.jsonl, TensorBoard events and a line of progress."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from flm_torchrec.files import atomic_file

# Seconds between two lines of progress: on a terminal the line is rewritten in place.
_LIVE, _PLAIN = 0.2, 5.0


class RunLog:
    """Writes on rank 0 only; the other ranks may call it and nothing happens.

    `start` is the step that training goes on from: what an earlier attempt logged after it is
    dropped, so every step stands in log.jsonl once.
    """

    def __init__(self, folder: Path | str, rank: int, steps: int, start: int = 0) -> None:
        self._steps = steps
        self._writes = rank == 0
        if not self._writes:
            return
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _keep_until(folder / "log.jsonl", start)
        self._file = (folder / "log.jsonl").open("a", buffering=1, encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
        self._live = sys.stdout.isatty()
        self._began = self._printed = time.monotonic()
        self._start = start

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of `step`; the one called "loss" is shown in the progress."""
        if not self._writes:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        now = time.monotonic()
        if now - self._printed >= (_LIVE if self._live else _PLAIN) or step == self._steps:
            self._printed = now
            self._show(self._progress(step, values, now - self._began), last=step == self._steps)

    def close(self) -> None:
        if self._writes:
            self._file.close()
            self._board.close()

    def _progress(self, step: int, values: Mapping[str, float], seconds: float) -> str:
        rate = (step - self._start) / max(seconds, 1e-9)
        left = int((self._steps - step) / max(rate, 1e-9))
        loss = f"loss {values['loss']:.4f}  " if "loss" in values else ""
        return (
            f"step {step}/{self._steps}  {loss}{rate:.1f} steps/s  "
            f"{left // 60}:{left % 60:02d} left"
        )

    def _show(self, line: str, *, last: bool) -> None:
        if self._live:
            print(f"\r\033[K{line}", end="\n" if last else "", flush=True)
        else:
            print(line, flush=True)


def _keep_until(path: Path, step: int) -> None:
    """Drop the lines of later steps, and a last line that was cut off while being written."""
    if not path.exists():
        return
    lines = [line for line in path.read_text("utf-8").splitlines(keepends=True) if "\n" in line]
    with atomic_file(path) as temporary:
        temporary.write_text("".join(x for x in lines if json.loads(x)["step"] <= step), "utf-8")
