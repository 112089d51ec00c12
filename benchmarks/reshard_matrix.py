"""Checkpoints across worlds: saved at 1, 2 and 4 ranks under each sharding type, loaded at 1, 2 and
4 under each other.

    python benchmarks/reshard_matrix.py

A line a pair goes to benchmarks/results/reshard_matrix.jsonl; a table of how many passed, and exit
code 1 when one did not, come at the end. Started again it goes on where it was stopped, as long as
the folder of its checkpoints is there.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import socket
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flm_benchmarks.harness import RESULTS
from flm_benchmarks.resharding import OPTIMIZERS, Place, described, load, save

from flm_torchrec.errors import UserError, app
from flm_torchrec.files import atomic_file
from flm_torchrec.training.placing import SHARDING_TYPES
from flm_torchrec.training.runtime import Runtime, start

WORLDS = (1, 2, 4)
Pair = tuple[Place, Place, str]  # saved, loaded, optimizer
Work = Callable[[Runtime, Sequence[Any], Path, Path], None]


def on_ranks(world_size: int, work: Work, units: Sequence[Any], folder: Path, out: Path) -> None:
    """Do `work` on so many new processes, two a machine as far as TorchRec knows."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flm_torchrec.training.sharding"])  # takes seconds
    workers = [
        context.Process(target=_rank, args=(rank, world_size, port, work, units, folder, out))
        for rank in range(world_size)
    ]
    for worker in workers:
        worker.start()
    for rank, worker in enumerate(workers):
        worker.join()
        if worker.exitcode:
            raise RuntimeError(f"rank {rank} of {world_size} ended with {worker.exitcode}")


def _rank(
    rank: int, world_size: int, port: int, work: Work, units: Sequence[Any], folder: Path, out: Path
) -> None:
    local_world_size = min(2, world_size)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank % local_world_size),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(local_world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    with start(timeout=120) as runtime:
        work(runtime, units, folder, out)


def place_of(folder: Path, place: Place, optimizer: str) -> Path:
    """Where what is saved at a place is."""
    return folder / f"{place}-{optimizer}"


def save_all(runtime: Runtime, units: Sequence[tuple[Place, str]], folder: Path, _: Path) -> None:
    """Save under each type and optimizer."""
    for place, optimizer in units:
        save(runtime, place_of(folder, place, optimizer), place.sharding, optimizer)


def load_all(runtime: Runtime, units: Sequence[Pair], folder: Path, out: Path) -> None:
    """Load each; rank 0 adds a line to the results."""
    versions = {name: version(name) for name in ("torch", "torchrec")}
    for source, target, optimizer in units:
        try:
            saved = place_of(folder, source, optimizer)
            found = load(runtime, saved, target.sharding, optimizer, folder / "again")
        except Exception as error:
            if runtime.world_size > 1 and "/gloo/" in str(error):
                raise
            found = {"passed": False, "error": f"{type(error).__name__}: {error}"}
        if runtime.rank == 0:
            with out.open("a", encoding="utf-8") as file:
                line = described(source, target, optimizer) | found | {"versions": versions}
                file.write(json.dumps(line) + "\n")
            print(f"{source} -> {target}, {optimizer}: {found['passed']}", flush=True)


def read_lines(out: Path) -> dict[str, dict[str, Any]]:
    """The results so far, by pair; a line that was cut off is left out."""
    text = out.read_text(encoding="utf-8") if out.exists() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return {_key(line): line for line in lines}


def keep_lines(out: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Leave the results whose checkpoint is still there, and return them."""
    kept = {
        key: line
        for key, line in read_lines(out).items()
        if _is_saved(folder, Place(**line["from"]), line["optimizer"])
    }
    with atomic_file(out) as file:
        file.write_text("".join(json.dumps(line) + "\n" for line in kept.values()), "utf-8")
    return kept


def _is_saved(folder: Path, place: Place, optimizer: str) -> bool:
    return (place_of(folder, place, optimizer) / "losses.json").exists()


def _key(record: dict[str, Any]) -> str:
    return json.dumps([record[name] for name in ("from", "to", "optimizer")], sort_keys=True)


def as_table(records: Sequence[dict[str, Any]], optimizer: str) -> str:
    """How many pairs passed, by the types of both; "c" where some said that they converted."""
    types = [name for name in SHARDING_TYPES if any(r["from"]["sharding"] == name for r in records)]
    width = max(len(name) for name in types)
    lines = [f"{optimizer}: saved under (down), loaded under (across): passed/all, c: converted"]
    lines.append(" " * width + "".join(f"  {name:>{width}}" for name in types))
    for row in types:
        cells = []
        for column in types:
            own = [
                record
                for record in records
                if (record["from"]["sharding"], record["to"]["sharding"], record["optimizer"])
                == (row, column, optimizer)
            ]
            passed = sum(record["passed"] for record in own)
            converted = any(record.get("converted") for record in own)
            cells.append(f"{passed}/{len(own)}{' c' if converted else ''}")
        lines.append(f"{row:<{width}}" + "".join(f"  {cell:>{width}}" for cell in cells))
    return "\n".join(lines)


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Save and load all pairs that have no result yet; 1 when a pair fails."""
    parser = argparse.ArgumentParser(prog="reshard_matrix.py", description=__doc__)
    parser.add_argument("--worlds", type=int, nargs="+", default=WORLDS, choices=WORLDS)
    parser.add_argument("--types", nargs="+", default=SHARDING_TYPES, choices=SHARDING_TYPES)
    parser.add_argument("--folder", type=Path, default=Path("data/reshard"), help="of checkpoints")
    parser.add_argument("--out", type=Path, default=RESULTS / "reshard_matrix.jsonl")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    args = parser.parse_args(argv)
    if 1 not in args.worlds:
        raise UserError("--worlds: lacks 1, which the others are compared with")
    if args.fresh:
        shutil.rmtree(args.folder, ignore_errors=True)
    places = [Place(world, sharding) for world in args.worlds for sharding in args.types]
    pairs = [(one, other, name) for name in OPTIMIZERS for one in places for other in places]
    known = keep_lines(args.out, args.folder)
    left = [pair for pair in pairs if _key(described(*pair)) not in known]
    needed = {(source, optimizer) for source, _, optimizer in left}
    for world in sorted(args.worlds):
        to_save = [
            (place, optimizer)
            for place, optimizer in sorted(needed, key=str)
            if place.world_size == world and not _is_saved(args.folder, place, optimizer)
        ]
        if to_save:
            on_ranks(world, save_all, to_save, args.folder, args.out)
    for world in sorted(args.worlds):
        if to_load := [pair for pair in left if pair[1].world_size == world]:
            on_ranks(world, load_all, to_load, args.folder, args.out)
    known = read_lines(args.out)
    records = [known[_key(described(*pair))] for pair in pairs]
    for optimizer in OPTIMIZERS:
        print(as_table(records, optimizer))
    failed = [record for record in records if not record["passed"]]
    for record in failed:
        print(f"failed: {json.dumps(record)}")
    print(f"{len(records) - len(failed)} of {len(records)} pairs passed")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
