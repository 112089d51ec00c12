"""The JSON lines of the sharding benchmark: one a point, with the whole setting.

A line is {benchmark, schema, status, setting, machine, versions, time} and, by its status,
"measured": figures, repeats (seconds of the slowest rank), plan, load (of the machine, by the
minute's end); "impossible" or "failed": reason.

Example:
    for line in read_lines(Path("sharding.jsonl")):
        print(key_of(line), line["status"])
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flm_torchrec.errors import UserError

BENCHMARK = "sharding"
SCHEMA = 3  # 1 had no rows in its points, 2 no calibration
_BUSY = 1.5
Line = dict[str, Any]


def machine_key(machine: Mapping[str, Any], *, apart_from: Sequence[str] = ("system",)) -> str:
    """What makes two machines the same one: all but the system's version."""
    return json.dumps({k: v for k, v in machine.items() if k not in apart_from}, sort_keys=True)


def key_of(line: Mapping[str, Any]) -> str:
    """Setting and machine."""
    return json.dumps(line["setting"], sort_keys=True) + machine_key(line["machine"])


def name_of(line: Mapping[str, Any]) -> str:
    """A line in a few words."""
    point = line["setting"]["point"]
    rows = "" if point["rows"] is None else f", {point['rows']} rows"
    pooled = "" if point["pooling"] is None else f", pooling {point['pooling']:g}"
    return (
        f"{plan_name(line)}, {line['setting']['name']}, {point['dtype']}, "
        f"batch {point['batch_size']}{rows}{pooled}, {point['ids']}, "
        f"{ranks_of(line)}"
    )


def ranks_of(line: Mapping[str, Any]) -> str:
    """As 2 ranks."""
    count = line["setting"]["world_size"]
    return f"{count} rank{'' if count == 1 else 's'}"


def plan_name(line: Mapping[str, Any]) -> str:
    """Sharding type, kernel, pipeline."""
    point = line["setting"]["point"]
    return f"{point['sharding']} {point['kernel']} {point['pipeline']}"


def busy(lines: Iterable[Mapping[str, Any]]) -> str | None:
    """A remark where other programs ran beside the measured ones; None where not."""
    worst = max((line for line in lines if "load" in line), key=_excess, default=None)
    if worst is None or _excess(worst) <= _BUSY:
        return None
    return (
        f"the machine was busy with other programs: load {worst['load']:.1f} on "
        f"{worst['machine']['cores']} cores; figures of different minutes differ by that alone"
    )


def _excess(line: Mapping[str, Any]) -> float:
    """Load over what the ranks themselves may cause."""
    return line["load"] / max(line["machine"]["cores"], line["setting"]["local_world_size"])


def read_lines(path: Path) -> list[Line]:
    """The lines of a file; UserError naming the one that is none of ours, or of another schema."""
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: is not JSON ({error.msg})") from error
        if not isinstance(line, dict) or line.get("benchmark") != BENCHMARK:
            raise UserError(f"{path}, line {number}: is no line of the benchmark '{BENCHMARK}'")
        if line.get("schema") != SCHEMA:
            raise UserError(
                f"{path}, line {number}: schema {line.get('schema')}; this version reads {SCHEMA}"
            )
        lines.append(line)
    return lines


def mend(path: Path) -> None:
    """Cut off a last line of which a job that was ended has written a part only."""
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)


def append(path: Path, line: Line) -> None:
    """Add a line, and have the disk hold it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())
