"""Our ranking with one part off at a time, on validation alone: what of it pays?"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from flm_apps.trained import load_run
from flm_benchmarks.ours import by_all, check_same
from flm_benchmarks.peers.split_log import VALIDATION, SplitLog, next_items
from flm_benchmarks.peers.top_items import ndcg
from flm_benchmarks.peers.units import OutOfTimeError, fingerprint
from flm_benchmarks.runs import Runs

from flm_torchrec.assemble import Assembly
from flm_torchrec.data.sampling import histories_where
from flm_torchrec.files import atomic_file
from flm_torchrec.training.runtime import start

FULL = "full"
FIGURES = ("ndcg@10", "log_likelihood")


def log_likelihood(assembly: Assembly, log: SplitLog) -> float:
    """The mean log-probability of what validation wants, among all items that a user doesn't
    know; by the scores as they were trained, which `views.linear.boost` sharpens for the order's
    sake alone."""
    search, linear = next_items(log, VALIDATION), assembly.model.flm.linear
    boost = 0.0 if linear is None else linear.boost
    if linear is not None:
        linear.boost = 0.0
    users, place = np.unique(log.user[search.wanted], return_inverse=True)
    seqs = histories_where(assembly.dataset.interactions, search.history)
    scores = assembly.retrieval().scores(users, seqs).cpu()
    if linear is not None:
        linear.boost = boost
    is_out = torch.from_numpy(log.matrix(search.known)[users].toarray() > 0)
    is_out[:, 0] = True  # the unknown item
    said = scores.masked_fill(is_out, -torch.inf).log_softmax(dim=1)
    return float(said[torch.from_numpy(place), torch.from_numpy(log.item[search.wanted])].mean())


def unit(
    file: Path,
    runs: Runs,
    data: Path,
    log: SplitLog,
    setting: Mapping[str, Any],
    seed: int,
    *,
    until: float,
) -> dict[str, Any]:
    """The figures of one run, trained unless its file is there; OutOfTimeError after `until`."""
    same = {"version": runs.version, "setting": dict(setting), "seed": seed}
    same |= {"split": fingerprint(log)}
    if file.exists():
        found = json.loads(file.read_text(encoding="utf-8"))
        if found | same == found:
            return found
    if time.monotonic() > until:
        raise OutOfTimeError(file.stem)
    begin = time.perf_counter()
    with start() as runtime:
        assembly = load_run(runs.trained(data, setting, seed), runtime)
        check_same(assembly, log)
        search = next_items(log, VALIDATION)
        told = same | {
            "ndcg@10": ndcg(log, search, by_all(assembly, log, search), 10),
            "log_likelihood": log_likelihood(assembly, log),
        }
    told |= {"seconds": time.perf_counter() - begin}
    with atomic_file(file) as temporary:
        temporary.write_text(json.dumps(told), encoding="utf-8")
    return told


def ablated(
    runs: Runs,
    data: Path,
    log: SplitLog,
    *,
    parts: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    out: Path,
    until: float,
) -> list[dict[str, Any]]:
    """Train with each of `parts` set otherwise, FULL first; -> a record each."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, changed in {FULL: {}, **parts}.items():
        found[name] = []
        for seed in seeds:
            file = out / f"{name}.{seed}.json"
            found[name].append(unit(file, runs, data, log, changed, seed, until=until))
    return [record(name, told, found[FULL]) for name, told in found.items()]


def record(
    name: str, told: Sequence[Mapping[str, Any]], full: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Mean and spread over seeds of each figure, and what it gains over the full run."""
    figures = {}
    for figure in FIGURES:
        own, whole = ([float(one[figure]) for one in ones] for ones in (told, full))
        figures[figure] = {
            "mean": fmean(own),
            "spread": stdev(own) if len(own) > 1 else None,
            "gain": fmean(own) - fmean(whole),
            "gain_error": error_of_gain(own, whole),
        }
    return {"name": name, "setting": told[0]["setting"], **figures}


def error_of_gain(own: Sequence[float], whole: Sequence[float]) -> float | None:
    """The standard error of the difference of means; None of a single seed."""
    if len(own) < 2 or len(whole) < 2:
        return None
    return (stdev(own) ** 2 / len(own) + stdev(whole) ** 2 / len(whole)) ** 0.5


def as_text(records: Sequence[Mapping[str, Any]]) -> str:
    """A line each: the figures, and what is gained without the part."""
    lines = ["\nablation, on validation: mean over seeds (gain over full +- its error)"]
    for row in records:
        cells = []
        for figure in FIGURES:
            told = row[figure]
            error = "" if told["gain_error"] is None else f" +- {told['gain_error']:.4f}"
            cells.append(f"{figure} {told['mean']:.4f} ({told['gain']:+.4f}{error})")
        lines.append(f"  {row['name']:<28} {'  '.join(cells)}")
    return "\n".join(lines)
