"""Does the first stage help the second? Both rank the same test, from the same interactions."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from flm_benchmarks.ours import by_all, by_runs, ndcg_of, searched
from flm_benchmarks.peers.measured import measured
from flm_benchmarks.peers.split_log import TEST, VALIDATION, SplitLog, next_items
from flm_benchmarks.peers.units import Peer, run_peer
from flm_benchmarks.runs import Runs

from flm_torchrec.evaluation.compare import Estimate, ratio_of_means

ALONE, BOTH = "stage 2 alone", "stages 1 and 2"


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoStages:
    """Runs of a second stage, each from one of a first stage on the same data and seed, or from
    nothing where there is none."""

    first: Runs | None
    second: Runs

    @property
    def version(self) -> str:
        """Of both configurations."""
        return (self.first.version if self.first else "") + self.second.version

    def trained(self, data: Path, setting: Mapping[str, Any], seed: int) -> Path:
        """The folder of the second stage's run."""
        init = str(self.first.trained(data, {}, seed)) if self.first else None
        return self.second.trained(data, {"init": init, **setting}, seed)


def compared(
    stages: TwoStages, data: Path, log: SplitLog, *, out: Path, quick: bool, until: float
) -> dict[str, Any]:
    """Train what isn't trained; -> the metrics of both, and what the difference is called."""
    for name, runs in {ALONE: replace(stages, first=None), BOTH: stages}.items():
        fit = partial(
            by_runs, runs, {VALIDATION: data, TEST: data}, partial(searched, by_all, next_items)
        )
        quality = partial(ndcg_of, next_items, 10)
        peer = Peer(fit=fit, quality=quality, grid="", is_random=True, version=runs.version)
        run_peer(name, peer, log, {}, out, quick=quick, until=until)
    found = {row.peer: row for row in measured("ranking", log, out)}
    ratio = ratio_of_means(*(found[name].per_user["ndcg@10"] for name in (BOTH, ALONE)))
    told = {name: {"test": row.mean, "by_seed": row.by_seed} for name, row in found.items()}
    return {**told, "both_over_alone": asdict(ratio), "verdict": verdict(ratio)}


def verdict(ratio: Estimate) -> str:
    """Of an interval: on which side of 1 it lies."""
    if ratio.low > 1:
        return "helps"
    return "hurts" if ratio.high < 1 else "undecided"


def as_text(share: float, told: Mapping[str, Any]) -> str:
    """One line."""
    both, ratio = (told[name] for name in (BOTH, "both_over_alone"))
    return (
        f"\nstage 1 at {share:.0%} of the interactions {told['verdict']}: ndcg@10 "
        f"{both['test']['ndcg@10']:.4f} with, {told[ALONE]['test']['ndcg@10']:.4f} without, ratio "
        f"{ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"
    )
