"""`flm checkpoint`: list a run's checkpoints, look into one, verify its files, reshard it."""

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Any

from flm_torchrec.errors import UserError, app
from flm_torchrec.training.markers import (
    MARKER,
    damage,
    latest,
    read_marker,
    step_folders,
    written,
)

# Nothing heavy is imported before a verb needs it, and no verb needs a process group.


def _list(arguments: argparse.Namespace) -> int:
    folder = _folder(arguments.run)
    rows = [_summary(step, path) for step, path in step_folders(folder).items()]
    if not rows:
        raise UserError(f"{arguments.run}: holds no checkpoint; allowed: a trained run's folder")
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return 0
    told = [("step", "size", "saved at", "state")]
    told += [(str(r["step"]), _size(r["bytes"]), r["saved_at"] or "", r["state"]) for r in rows]
    print(_columns(told))
    return 0


def _summary(step: int, path: Path) -> dict[str, Any]:
    """A line of the list; the files are looked at, not read."""
    wrong = damage(path, reads=False)
    marker = path / MARKER
    if wrong is None and not written(path):
        wrong = _missing(path)
    if wrong is not None:
        state = f"not whole: {wrong}"
    else:
        state = "whole" if written(path) else "whole, without checksums"
    return {
        "step": step,
        "path": str(path),
        "bytes": sum(file.stat().st_size for file in path.iterdir()),
        "saved_at": _date(path) if marker.is_file() else None,
        "state": state,
    }


def _date(path: Path) -> str:
    """When the checkpoint at `path` was saved: as its marker says, or the marker's own age."""
    changed = datetime.fromtimestamp((path / MARKER).stat().st_mtime, UTC)
    told = {} if damage(path, ()) else json.loads((path / MARKER).read_text(encoding="utf-8"))
    return str(told.get("saved_at") or changed.isoformat(timespec="seconds"))


def _inspect(arguments: argparse.Namespace) -> int:
    path = _checkpoint(arguments.checkpoint)
    marker = read_marker(path)
    from flm_torchrec.training.stored import entries

    found = [
        {
            "entry": name,
            "shape": list(own.size),
            "dtype": str(own.properties.dtype).removeprefix("torch."),
            "bytes": prod(own.size) * own.properties.dtype.itemsize,
            "pieces": len(own.chunks),
        }
        for name, own in sorted(entries(path).items())
    ]
    about = {
        "path": str(path),
        "step": marker["step"],
        "schema": marker["schema"],
        "saved_at": _date(path),
        "world_size": marker.get("world_size"),
        "plan": marker.get("plan"),
        "column_widths": marker.get("column_widths", {}),
        "resharded": marker.get("resharded"),
        "meta": marker["meta"],
    }
    if arguments.json:
        print(json.dumps(about | {"entries": found}, indent=1))
        return 0
    _tell(about, found)
    return 0


def _tell(about: dict[str, Any], found: Sequence[dict[str, Any]]) -> None:
    ranks = about["world_size"]
    by = "it isn't kept by how many ranks" if ranks is None else f"by {ranks} rank(s)"
    print(f"{about['path']}: step {about['step']}, schema {about['schema']}")
    print(f"saved at {about['saved_at']}, {by}")
    if about["resharded"] is not None:
        print(f"resharded since, to {about['resharded']['columns']} column shard(s) a table")
    for key, value in about["meta"].items():
        if isinstance(value, str | int | float):
            print(f"{key}: {value}")
    if about["plan"]:
        rows = [("table", "rows", "width", "dtype", "sharding", "kernel", "ranks")]
        for table in about["plan"]:
            ranks = ",".join(str(rank) for rank in table["ranks"])
            # Before it was told, all rows were fp32.
            size = str(table["rows"]), str(table["dim"]), table.get("dtype", "fp32")
            rows.append((table["table"], *size, table["sharding_type"], table["kernel"], ranks))
        print(f"\n{_columns(rows)}")
    rows = [("entry", "shape", "dtype", "size", "pieces")]
    for one in found:
        size = _size(one["bytes"])
        rows.append((one["entry"], str(one["shape"]), one["dtype"], size, str(one["pieces"])))
    print(f"\n{_columns(rows)}")
    print(f"{len(found)} entries, {_size(sum(one['bytes'] for one in found))}")


def _verify(arguments: argparse.Namespace) -> int:
    path = _checkpoint(arguments.checkpoint)
    wrong = damage(path)
    files = list(written(path))
    if wrong is None and not files:
        read_marker(path)
        wrong = _missing(path)
        if wrong is None:
            print(f"{path}: its files are there; it was written before checksums were kept")
            return 0
    if wrong is not None:
        print(f"{path}: {wrong}")
        return 1
    print(f"{path}: all {len(files)} files are as they were written")
    return 0


def _missing(path: Path) -> str | None:
    """The first file of a checkpoint without checksums that is missing or too short."""
    if not (path / ".metadata").is_file():
        return ".metadata is missing"
    from flm_torchrec.training.stored import files_of

    try:
        files = files_of(path)
    except UserError as error:
        return str(error)
    for name, least in files.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if (size := (path / name).stat().st_size) < least:
            return f"{name} is damaged: {size} bytes, at least {least} were written"
    return None


def _reshard(arguments: argparse.Namespace) -> int:
    path = _checkpoint(arguments.checkpoint)
    from flm_torchrec.training.reshard import reshard

    told = reshard(path, arguments.out, columns=arguments.columns)
    for line in told:
        print(line)
    if not told:
        print("nothing had to be converted")
    print(f"{arguments.out}: {path}, for any number of ranks")
    return 0


def _folder(run: Path) -> Path:
    return run / "checkpoints" if (run / "checkpoints").is_dir() else run


def _checkpoint(path: Path) -> Path:
    """`path`, or the last checkpoint of the run that it is."""
    is_one = (path / MARKER).is_file() or path.name.startswith("step-")
    found = path if is_one and path.is_dir() else latest(_folder(path))
    if found is None:
        raise UserError(
            f"{path}: is no checkpoint; allowed: a folder with {MARKER}, or a trained run's folder"
        )
    return found


def _size(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}; allowed: 1 or more")
    return value


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; 1 when `verify` finds a file that isn't as it was written."""
    parser = argparse.ArgumentParser(prog="flm checkpoint", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("list", help="steps, sizes, dates, whole or not")
    one.add_argument("run", type=Path, help="a run's folder, or its folder of checkpoints")
    one.set_defaults(work=_list)
    helps = {
        "inspect": (_inspect, "entries, the plan and ranks it was written by"),
        "verify": (_verify, "read all files: are they as they were written?"),
        "reshard": (_reshard, "rewrite row-wise optimizer state for other column shards"),
    }
    for verb, (work, told) in helps.items():
        two = verbs.add_parser(verb, help=told)
        two.add_argument("checkpoint", type=Path, help="a checkpoint, or a run: its last one")
        two.set_defaults(work=work)
        if verb == "inspect":
            two.add_argument("--json", action="store_true", help="print it as JSON")
        if verb == "reshard":
            two.add_argument("--out", type=Path, required=True, help="the new checkpoint's folder")
            two.add_argument(
                "--columns", type=_positive, default=1, help="column shards of each table"
            )
    one.add_argument("--json", action="store_true", help="print it as JSON")
    arguments = parser.parse_args(argv)
    return arguments.work(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
