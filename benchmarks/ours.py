"""Our runs on the splits of the peers, chosen and judged as they are.

`python -m flm_benchmarks.ours ranking --split SPLIT.npz --out FOLDER` trains what
configs/quality/FAMILY.yaml says, with the settings of ours.yaml, on the data folder that the split
lies in, and leaves answers in FOLDER as the peers do.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import yaml
from flm_apps.trained import load_run
from flm_benchmarks.folders import with_validation
from flm_benchmarks.peers.measured import FAMILIES, search_of
from flm_benchmarks.peers.split_log import (
    CLICKS,
    TEST,
    VALIDATION,
    Search,
    Searching,
    SplitLog,
    earlier,
)
from flm_benchmarks.peers.top_items import DEPTH, ndcg
from flm_benchmarks.peers.units import Answer, Fit, Peer, Setting, parser, run_peers
from flm_benchmarks.runs import Runs
from numpy.typing import NDArray
from torch import Tensor

from flm_torchrec.assemble import Assembly, assemble
from flm_torchrec.data.sampling import histories_where, last_windows
from flm_torchrec.errors import UserError, app
from flm_torchrec.evaluation.metrics import log_loss, rmse
from flm_torchrec.evaluation.ranking import top_items
from flm_torchrec.measure import Part, answers
from flm_torchrec.retrieval import evaluating
from flm_torchrec.training.runtime import start

CONFIGS = Path(__file__).parent / "configs" / "quality"
SETTINGS = Path(__file__).parent / "ours.yaml"
LINEAR = "linear"  # the variant that is the linear path alone
LABELS = {"clicks": "like", "ratings": "rating"}
PARTS: dict[int, Part] = {VALIDATION: "validation", TEST: "test"}
_BLOCK = 256  # users

# A run, the log it was trained on, a part, and what Answer is told of beside -> what the run says.
Asked = Callable[..., NDArray[Any]]


def best_items(
    score: Callable[[NDArray[np.int64]], Tensor], log: SplitLog, search: Search
) -> NDArray[np.int64]:
    """(num_users, DEPTH) the best candidates that a user doesn't know, best first; `score` maps
    user rows (b,) -> (b, num_items)."""
    known, best = log.matrix(search.known), []
    for users in np.split(np.arange(log.num_users), range(_BLOCK, log.num_users, _BLOCK)):
        is_out = torch.from_numpy(known[users].toarray() > 0)
        is_out[:, torch.from_numpy(~search.candidates)] = True
        best.append(top_items(score(users).cpu().masked_fill(is_out, -torch.inf), DEPTH))
    return torch.cat(best).numpy()


def by_all(assembly: Assembly, log: SplitLog, search: Search) -> NDArray[np.int64]:
    """The lists of all that ranks in a run."""
    seqs = histories_where(assembly.dataset.interactions, search.history)
    retrieval = assembly.retrieval()
    return best_items(lambda users: retrieval.scores(users, seqs), log, search)


def by_linear(assembly: Assembly, log: SplitLog, search: Search) -> NDArray[np.int64]:
    """The lists of the linear path alone."""
    seqs = histories_where(assembly.dataset.interactions, search.history)
    linear = assembly.model.flm.linear
    assert linear is not None, "the configuration names views.linear"
    collator, device = assembly.collator, assembly.runtime.device

    def score(users: NDArray[np.int64]) -> Tensor:
        rows = collator.user_rows(last_windows(seqs, users, collator.window), seqs)
        with evaluating(assembly.model):
            return linear.catalogue(rows.to(device))

    return best_items(score, log, search)


def searched(
    rank: Callable[[Assembly, SplitLog, Search], NDArray[np.int64]],
    usual: Searching,
    assembly: Assembly,
    log: SplitLog,
    part: int,
    searching: Searching | None = None,
) -> NDArray[np.int64]:
    """Lists for what is searched for, usually or instead."""
    return rank(assembly, log, (searching or usual)(log, part))


def ndcg_of(
    searching: Searching, k: int, log: SplitLog, top: NDArray[np.int64], part: int
) -> float:
    """NDCG@k of lists for what is searched for."""
    return ndcg(log, searching(log, part), top, k)


def predicted(label: str, assembly: Assembly, log: SplitLog, part: int) -> NDArray[np.float64]:
    """(n,) what a head says of the interactions of a part, in the order of the log."""
    del log
    return answers(assembly, part=PARTS[part]).labels[label].double().numpy()


def check_same(assembly: Assembly, log: SplitLog) -> None:
    """The rows of a run's data must be those of the peers."""
    interactions = assembly.dataset.interactions
    for name in ("user", "item"):
        assert np.array_equal(getattr(interactions, name), getattr(log, name)), name


class Trainer(Protocol):
    """Gives the folder of a trained run."""

    def trained(self, data: Path, setting: Setting, seed: int) -> Path: ...


def by_runs(
    runs: Trainer,
    folders: Mapping[int, Path],
    ask: Asked,
    log: SplitLog,
    setting: Setting,
    seed: int,
) -> Iterator[Answer]:
    """One round: the whole run. `folders` are what a run is trained on that answers a part."""
    with start() as runtime:

        @cache
        def opened(data: Path) -> Assembly:
            assembly = load_run(runs.trained(data, setting, seed), runtime)
            check_same(assembly, log)
            return assembly

        yield lambda part, *how: ask(opened(folders[part]), log, part, *how)


def untrained(
    runs: Runs, data: Path, ask: Asked, log: SplitLog, setting: Setting, seed: int
) -> Iterator[Answer]:
    """What is fitted when a run is put together."""
    with start() as runtime:
        assembly = assemble(runs.read(data, setting, seed), runtime, training=False)
        assembly.refresh_text(keep=True)
        check_same(assembly, log)
        yield partial(ask, assembly, log)


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """Makes our variants peers of the others on one split."""

    family: str
    data: Path
    runs: Runs

    def folders(self) -> dict[int, Path]:
        """What to train on to answer a part: of what is cold in validation a run that answers the
        test knows, as the peers do."""
        is_cold = self.family in ("cold_items", "cold_users")
        return {
            VALIDATION: self.data,
            TEST: with_validation(self.data) if is_cold else self.data,
        }

    def ranker(self, variant: str, usual: Searching) -> Peer:
        """A variant that answers with lists."""
        k = 20 if self.family == "cold_items" else 10
        fit: Fit = partial(by_runs, self.runs, self.folders(), partial(searched, by_all, usual))
        if variant == LINEAR:
            fit = partial(untrained, self.runs, self.data, partial(searched, by_linear, usual))
        return Peer(
            fit=fit,
            quality=partial(ndcg_of, usual, k),
            grid=variant,
            is_random=variant != LINEAR,
            also={"earlier": earlier} if self.family == "ranking" else {},
            version=self.runs.version,
        )

    def predictor(self, variant: str) -> Peer:
        """A variant that answers with predictions of a label."""
        label = LABELS[self.family]

        def quality(log: SplitLog, said: NDArray[np.float64], part: int) -> float:
            loss = log_loss if self.family == "clicks" else rmse
            true = getattr(log, label)[log.part == part]
            return -loss(torch.from_numpy(said), torch.from_numpy(true))

        fit = partial(by_runs, self.runs, self.folders(), partial(predicted, label))
        return Peer(
            fit=fit, quality=quality, grid=variant, is_random=True, version=self.runs.version
        )

    def peers(self, variants: Sequence[str]) -> dict[str, Peer]:
        """By name; of cold users NAME.CLICKS, by the same runs."""
        if self.family in LABELS:
            return {name: self.predictor(name) for name in variants}
        counts = [f".{clicks}" for clicks in CLICKS] if self.family == "cold_users" else [""]
        names = {f"{name}{count}": name for name in variants for count in counts}
        return {
            name: self.ranker(variant, search_of(self.family, name))
            for name, variant in names.items()
        }


def variants_of(grid: str) -> dict[str, dict[str, list[Any]]]:
    """The settings that each of our variants is tuned over, by a section of ours.yaml."""
    return {
        name: values or {}
        for name, values in yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))[grid].items()
    }


@app
def main(argv: Sequence[str] | None = None) -> int:
    """Run our variants on a split file."""
    told = parser("ours")
    told.add_argument("family", choices=FAMILIES)
    told.add_argument("--steps", type=int, help="of each run, for a try")
    args = told.parse_args(argv)
    if not args.split.exists():
        raise UserError(f"--split {args.split}: no such file; make it with peers.splits")
    config, folder = CONFIGS / f"{args.family}.yaml", args.out / "runs"
    runs = Runs(config=config, folder=folder, steps=args.steps)
    maker = Maker(family=args.family, data=args.split.parent.parent, runs=runs)
    grids = variants_of(args.grid or args.family)
    code = run_peers(maker.peers(list(grids)), grids, args)
    if code == 0:
        shutil.rmtree(runs.folder, ignore_errors=True)  # their answers are there
    return code


if __name__ == "__main__":
    raise SystemExit(main())
