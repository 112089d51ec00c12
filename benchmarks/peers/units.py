"""Peers in units: every setting of a grid on validation, then the chosen one on test.

A unit is one training with one setting and seed. It leaves a file, so that a run that is started
again goes on where it was, and ends after LONGEST seconds with the best it has. Training stops
when validation hasn't gained for PATIENCE rounds, and what counts is the best round.
"""

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from flm_benchmarks.peers.split_log import TEST, VALIDATION, SplitLog
from numpy.typing import NDArray

GRID = Path(__file__).parent / "grid.yaml"
SEEDS = (0, 1, 2)
PATIENCE = 8
LONGEST = 25 * 60

Setting = Mapping[str, Any]
Answer = Callable[[int], NDArray[Any]]  # a part -> what the peer says of it
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
) -> tuple[dict[str, Any], NDArray[Any] | None]:
    """-> figures, and with `with_test` the answer to the test of the round best on validation."""
    begin, best, answer_to_test = time.perf_counter(), (-np.inf, 0), None
    rounds, seconds = 0, 0.0
    for rounds, answer in enumerate(peer.fit(log, setting, seed), 1):
        quality = peer.quality(log, answer(VALIDATION), VALIDATION)
        if quality > best[0]:
            best = quality, rounds
            answer_to_test = answer(TEST) if with_test else None
        seconds = time.perf_counter() - begin
        if rounds - best[1] >= PATIENCE or seconds > LONGEST:
            break
    figures = {
        "setting": dict(setting),
        "seed": seed,
        "validation": best[0],
        "best_round": best[1],
        "rounds": rounds,
        "seconds": round(time.perf_counter() - begin, 1),
        "out_of_time": seconds > LONGEST,
        "split": fingerprint(log),
    }
    return figures, answer_to_test


def read_figures(file: Path) -> dict[str, Any] | None:
    """What a unit found; None where there is no such file."""
    if not file.exists():
        return None
    with np.load(file) as arrays:
        return json.loads(str(arrays["figures"]))


def unit(
    file: Path, peer: Peer, log: SplitLog, setting: Setting, seed: int, *, with_test: bool
) -> dict[str, Any]:
    """The figures of a unit, which is run unless its file is there."""
    same = {"setting": dict(setting), "seed": seed, "split": fingerprint(log)}
    found = read_figures(file)
    if found is not None and found | same == found:
        return found
    figures, answer = run_unit(peer, log, setting, seed, with_test=with_test)
    told = np.array(json.dumps(figures))
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.stem}.{os.getpid()}.tmp.npz")
    if answer is None:
        np.savez_compressed(aside, figures=told)
    else:
        np.savez_compressed(aside, figures=told, answer=answer)
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
) -> dict[str, Any]:
    """Choose a setting by the first seed on validation, then answer the test once a seed.

    Leaves NAME.json, and NAME.SEED.npz with the array `answer`.
    """
    tried = []
    for setting in settings(grid, quick=quick):
        label = ",".join(f"{key}={value}" for key, value in setting.items()) or "default"
        file = out / "tuning" / f"{name},{label}.npz"
        tried.append(unit(file, peer, log, setting, SEEDS[0], with_test=False))
    chosen = max(tried, key=lambda figures: figures["validation"])
    seeds = SEEDS if peer.is_random and not quick else SEEDS[:1]
    finals = [
        unit(out / f"{name}.{seed}.npz", peer, log, chosen["setting"], seed, with_test=True)
        for seed in seeds
    ]
    told = {"peer": name, "chosen": chosen["setting"], "tried": tried, "finals": finals}
    (out / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return told


def main(family: str, peers: Mapping[str, Peer], argv: Sequence[str] | None = None) -> int:
    """Run the peers of a family on a split file."""
    parser = argparse.ArgumentParser(prog=f"python -m flm_benchmarks.peers.{family}")
    parser.add_argument("--split", type=Path, required=True, help="the npz of a split")
    parser.add_argument("--out", type=Path, required=True, help="a folder for what they answer")
    parser.add_argument("--only", nargs="+", choices=list(peers), default=list(peers))
    parser.add_argument("--quick", action="store_true", help="one setting and one seed each")
    args = parser.parse_args(argv)
    log = SplitLog.read(args.split)
    grids = yaml.safe_load(GRID.read_text(encoding="utf-8"))[family]
    for name in args.only:
        peer = peers[name]
        run_peer(name, peer, log, grids[peer.grid] or {}, args.out, quick=args.quick)
    return 0
