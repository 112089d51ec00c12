"""Peers in units: every setting of a grid on validation, then the chosen one on test.

A unit is one training with one setting and seed. It leaves a file, so that a run that is started
again goes on where it was, and ends after LONGEST seconds with the best it has. Training stops
when validation hasn't gained for PATIENCE rounds, and what counts is the best round. After
`--minutes` no unit is begun any more, and the exit code is OUT_OF_TIME.
"""

import argparse
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from flm_benchmarks.peers.split_log import TEST, VALIDATION, Searching, SplitLog
from numpy.typing import NDArray

GRID = Path(__file__).parent / "grid.yaml"
SEEDS = (0, 1, 2)
PATIENCE = 8
LONGEST = 25 * 60
OUT_OF_TIME = 2

Setting = Mapping[str, Any]
# A part, and another search than usual where the peer was told of one -> what the peer says.
Answer = Callable[..., NDArray[Any]]
# Trains on a log with a setting and a seed, and hands out its answers after each round.
Fit = Callable[[SplitLog, Setting, int], Iterator[Answer]]
Quality = Callable[[SplitLog, NDArray[Any], int], float]  # of an answer to a part; high is good


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A recommender, and how its answers on validation are judged."""

    fit: Fit
    quality: Quality
    grid: str  # its key in the family's grid
    is_random: bool = False
    # Searches by which the test is answered as well, into arrays of these names.
    also: Mapping[str, Searching] = field(default_factory=dict)
    version: str = ""  # of what its answers depend on beside setting, seed and split


class OutOfTimeError(Exception):
    """Names what is not begun any more."""


def settings(grid: Mapping[str, Sequence[Any]], *, quick: bool) -> list[dict[str, Any]]:
    """Every combination of the values; `quick`: of the first of each."""
    values = [choices[:1] if quick else choices for choices in grid.values()]
    return [dict(zip(grid, combination, strict=True)) for combination in product(*values)]


def fingerprint(log: SplitLog) -> str:
    """Of who met what in which part: figures of another split don't count."""
    digest = hashlib.sha256()
    for column in (log.user, log.item, log.part, log.rating):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()[:16]


def run_unit(
    peer: Peer, log: SplitLog, setting: Setting, seed: int, *, with_test: bool
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """-> figures, and with `with_test` the answers to the test of the round best on validation."""
    begin, best = time.perf_counter(), (-np.inf, 0)
    answers: dict[str, NDArray[Any]] = {}
    rounds, seconds = 0, 0.0
    for rounds, answer in enumerate(peer.fit(log, setting, seed), 1):
        quality = peer.quality(log, answer(VALIDATION), VALIDATION)
        if quality > best[0]:
            best = quality, rounds
            if with_test:
                also = {name: answer(TEST, searching) for name, searching in peer.also.items()}
                answers = {"answer": answer(TEST)} | also
        seconds = time.perf_counter() - begin
        if rounds - best[1] >= PATIENCE or seconds > LONGEST:
            break
    figures = {
        **_identity(peer, log, setting, seed, with_test=with_test),
        "validation": best[0],
        "best_round": best[1],
        "rounds": rounds,
        "seconds": round(time.perf_counter() - begin, 1),
        "out_of_time": seconds > LONGEST,
    }
    return figures, answers


def _identity(
    peer: Peer, log: SplitLog, setting: Setting, seed: int, *, with_test: bool
) -> dict[str, Any]:
    """What figures must tell of themselves to be those of a unit."""
    told = {"setting": dict(setting), "seed": seed, "split": fingerprint(log)}
    told |= {"version": peer.version} if peer.version else {}
    return told | ({"also": list(peer.also)} if with_test and peer.also else {})


def read_figures(file: Path) -> dict[str, Any] | None:
    """What a unit found; None where there is no such file."""
    if not file.exists():
        return None
    with np.load(file) as arrays:
        return json.loads(str(arrays["figures"]))


def unit(
    file: Path,
    peer: Peer,
    log: SplitLog,
    setting: Setting,
    seed: int,
    *,
    with_test: bool,
    until: float,
    known: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """The figures of a unit, run unless its file is there or they are among the `known` ones;
    OutOfTimeError instead after `until`."""
    same = _identity(peer, log, setting, seed, with_test=with_test)
    for found in (read_figures(file), *known):
        if found is not None and found | same == found:
            return found
    if time.monotonic() > until:
        raise OutOfTimeError(f"{file.stem} and what follows it")
    figures, answers = run_unit(peer, log, setting, seed, with_test=with_test)
    told = np.array(json.dumps(figures))
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.stem}.{os.getpid()}.tmp.npz")
    arrays: dict[str, Any] = {"figures": told, **answers}
    np.savez_compressed(aside, **arrays)
    os.replace(aside, file)
    seconds, quality = figures["seconds"], figures["validation"]
    print(f"{file.stem}: validation {quality:.4f}, {seconds} s", flush=True)
    return figures


def run_peer(
    name: str,
    peer: Peer,
    log: SplitLog,
    grid: Mapping[str, Sequence[Any]],
    out: Path,
    *,
    quick: bool,
    until: float = math.inf,
) -> dict[str, Any]:
    """Choose a setting by the first seed on validation, then answer the test once a seed.

    Leaves NAME.json, and NAME.SEED.npz with the array `answer`; the files in `tuning` are of no
    further use then.
    """
    done, known, tried = out / f"{name}.json", [], []
    if quick:
        peer = replace(peer, fit=partial(_first_round, peer.fit))
    if done.exists():
        known = json.loads(done.read_text(encoding="utf-8"))["tried"]
    for setting in settings(grid, quick=quick):
        label = ",".join(f"{key}={value}" for key, value in setting.items()) or "default"
        file = out / "tuning" / f"{name},{label}.npz"
        seed = SEEDS[0]
        tried.append(
            unit(file, peer, log, setting, seed, with_test=False, until=until, known=known)
        )
    chosen = max(tried, key=lambda figures: figures["validation"])
    seeds = SEEDS if peer.is_random and not quick else SEEDS[:1]
    finals = [
        unit(file, peer, log, chosen["setting"], seed, with_test=True, until=until)
        for seed, file in ((seed, out / f"{name}.{seed}.npz") for seed in seeds)
    ]
    told = {"peer": name, "chosen": chosen["setting"], "tried": tried, "finals": finals}
    done.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return told


def _first_round(fit: Fit, log: SplitLog, setting: Setting, seed: int) -> Iterator[Answer]:
    return islice(fit(log, setting, seed), 1)


def parser(program: str) -> argparse.ArgumentParser:
    """What every family is told."""
    parser = argparse.ArgumentParser(prog=f"python -m flm_benchmarks.{program}")
    parser.add_argument("--split", type=Path, required=True, help="the npz of a split")
    parser.add_argument("--out", type=Path, required=True, help="a folder for what they answer")
    parser.add_argument("--grid", help="a section of the file of settings; default: the family's")
    parser.add_argument("--quick", action="store_true", help="one setting, seed and round each")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing after them")
    return parser


def run_peers(
    peers: Mapping[str, Peer],
    grids: Mapping[str, Mapping[str, Sequence[Any]] | None],
    args: argparse.Namespace,
) -> int:
    """Run the peers on a split file, each with its grid."""
    log, until = SplitLog.read(args.split), time.monotonic() + 60 * args.minutes
    try:
        for name, peer in peers.items():
            grid = grids[peer.grid] or {}
            run_peer(name, peer, log, grid, args.out, quick=args.quick, until=until)
    except OutOfTimeError as error:
        print(f"{args.out}: no time left for {error}", flush=True)
        return OUT_OF_TIME
    return 0


def main(family: str, peers: Mapping[str, Peer], argv: Sequence[str] | None = None) -> int:
    """Run the peers of a family on a split file."""
    told = parser(f"peers.{family}")
    told.add_argument("--only", nargs="+", choices=list(peers), default=list(peers))
    args = told.parse_args(argv)
    grids = yaml.safe_load(GRID.read_text(encoding="utf-8"))[args.grid or family]
    return run_peers({name: peers[name] for name in args.only}, grids, args)
