"""Every point after the other; one that fails is told as such, and the next comes.

What a job that was killed had begun stands in FILE.running. With `resume` it is tried again, and
counts as failed once it has ended a job twice. So is what failed otherwise, each time.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch.distributed as dist
from flm_benchmarks.sharding.lines import (
    Line,
    append,
    key_of,
    mend,
    read_lines,
)
from flm_benchmarks.sharding.measure import Work, measure, refused
from flm_benchmarks.sharding.point import Point, impossible, told
from flm_benchmarks.sharding.setting import make_line, place, setting
from flm_benchmarks.sharding.timing import Spread
from flm_benchmarks.sharding.together import Failure, Together
from flm_benchmarks.sharding.traffic import copy_speed

from flm_torchrec.errors import UserError
from flm_torchrec.training.runtime import Runtime

KILLED = (
    "the job was ended twice while it ran: killed, perhaps out of memory; "
    "without this line in the file it is tried again"
)
_MOST_BEGUN = 2


@dataclass(frozen=True, slots=True)
class Journal:
    """The file of lines, which rank 0 writes; without one, lines are printed."""

    path: Path | None

    @property
    def running(self) -> Path | None:
        """Holds the line of the point that is being measured."""
        return None if self.path is None else self.path.with_name(f"{self.path.name}.running")

    def begin(self, line: Line) -> None:
        """Remember what is measured now, and how often it was begun."""
        if self.running is not None:
            begun, before = self._begun()
            again = before is not None and key_of(before) == key_of(line)
            marker = {"begun": begun + 1 if again else 1, "line": line}
            self.running.write_text(json.dumps(marker), encoding="utf-8")

    def _begun(self) -> tuple[int, Line | None]:
        if self.running is None or not self.running.exists():
            return 0, None
        marker = json.loads(self.running.read_text(encoding="utf-8"))
        return marker["begun"], marker["line"]

    def end(self, line: Line) -> None:
        """Keep what came of it."""
        if self.path is None:
            print(json.dumps(line), flush=True)
            return
        append(self.path, line)
        self.forget()

    def forget(self) -> None:
        """What was begun has ended, or was interrupted and is not to blame."""
        if self.running is not None:
            self.running.unlink(missing_ok=True)

    def lines(self, *, resume: bool) -> list[Line]:
        """What is there already; UserError where something is and `resume` is not set."""
        if self.path is None:
            return []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not resume:
            if self.path.exists():
                raise UserError(f"--out {self.path}: exists; --resume goes on with it")
            return []
        if self.path.exists():
            mend(self.path)
        begun, line = self._begun()
        if line is not None and begun >= _MOST_BEGUN:
            self.end(line)
        return read_lines(self.path) if self.path.exists() else []


def sweep(
    runtime: Runtime,
    work: Work,
    points: Sequence[Point],
    *,
    out: Path | None = None,
    resume: bool = False,
    copy_megabytes: int = 256,
) -> list[Line]:
    """Measure every point; -> on rank 0 the lines, those of `out` included, on others none."""
    journal = Journal(out)
    where = place(runtime)
    kept = _kept(runtime, journal, resume=resume)
    held = {key_of(line) for line in kept if not _is_tried_again(line)}
    settings = [setting(work, point, runtime.world_size) for point in points]
    is_done = [key_of({"setting": each, **where}) in held for each in settings]
    # Rank 0 has read the file, and tells the others.
    dist.broadcast_object_list(is_done, 0)
    todo = []
    lines = list(kept)
    for point, each, done in zip(points, settings, is_done, strict=True):
        reason = impossible(point, runtime.device.type) or refused(work, point)
        if reason is None and not done:
            todo.append((point, each))
        elif not done and runtime.rank == 0:
            lines.append(make_line("impossible", each, where, {"reason": reason}))
            journal.end(lines[-1])
    copy = copy_speed(runtime.device, megabytes=copy_megabytes)
    together, progress = Together(runtime), _Progress(len(todo))
    try:
        with _interrupts() as interrupts:
            for point, each in todo:
                if runtime.rank == 0:
                    journal.begin(make_line("failed", each, where, {"reason": KILLED}))
                status, entries = _outcome(runtime, work, point, copy, together)
                if interrupts:
                    raise KeyboardInterrupt
                if runtime.rank == 0:
                    lines.append(make_line(status, each, where, entries))
                    journal.end(lines[-1])
                    progress.tell(point, lines[-1])
    except KeyboardInterrupt:
        if runtime.rank == 0:
            journal.forget()
        raise
    return list({key_of(line): line for line in lines}.values())


def _is_tried_again(line: Line) -> bool:
    return line["status"] == "failed" and line["reason"] != KILLED


@contextmanager
def _interrupts() -> Iterator[list[bool]]:
    """-> what has an entry once there was an interrupt: one that comes while Python collects
    garbage raises nothing."""
    asked: list[bool] = []

    def ask(*_: object) -> None:
        asked.append(True)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def _kept(runtime: Runtime, journal: Journal, *, resume: bool) -> list[Line]:
    """On rank 0 what the file holds; every rank raises what rank 0 finds wrong with it."""
    kept: list[Line] = []
    wrong: list[str | None] = [None]
    if runtime.rank == 0:
        try:
            kept = journal.lines(resume=resume)
        except UserError as error:
            wrong = [str(error)]
        except OSError as error:
            wrong = [f"{error.filename}: {error.strerror}"]
    dist.broadcast_object_list(wrong, 0)
    if wrong[0] is not None:
        raise UserError(wrong[0])
    return kept


def _outcome(
    runtime: Runtime, work: Work, point: Point, copy: Spread, together: Together
) -> tuple[str, dict[str, Any]]:
    """-> the status of a line, and what comes with it."""
    outcome = together.attempt(lambda: measure(runtime, work, point, copy))
    if isinstance(outcome, Failure):
        return "failed", {"reason": outcome.told, "rank": outcome.rank}
    return "measured", {
        "figures": outcome.figures,
        "repeats": outcome.repeats,
        "plan": outcome.plan,
        "load": os.getloadavg()[0],
    }


class _Progress:
    """Tells on stderr which point was measured, and how long the others will take."""

    def __init__(self, points: int) -> None:
        self._points, self._done = points, 0
        self._began = monotonic()

    def tell(self, point: Point, line: Line) -> None:
        self._done += 1
        left = (monotonic() - self._began) / self._done * (self._points - self._done)
        if line["status"] == "measured":
            result = f"{line['figures']['step']['median_ms']:.2f} ms a step"
        else:
            result = f"{line['status']}: {line['reason']}"
        remaining = f"{left / 60:.0f} min" if left >= 60 else f"{left:.0f} s"
        print(
            f"[{self._done}/{self._points}] {told(point)}: {result}; about {remaining} left",
            file=sys.stderr,
            flush=True,
        )
