"""Is the plan that a calibrated planner makes the fastest of many, and is its prediction right?

torchrun --nproc_per_node 2 -m flm_benchmarks.plans --out plans.jsonl

calibrates the machine for its ranks, measures plans of four mixes of tables, and then the
planner's and the fastest ones again, in turn. It goes on with a file that holds some of them.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from flm_benchmarks.harness import in_turn
from flm_benchmarks.plan_lines import Journal, calibrated, calibration_of
from flm_benchmarks.sharding.ids import make_batches
from flm_benchmarks.sharding.timing import repeat, slowest
from torch.distributed.elastic.multiprocessing.errors import record
from torchrec import KeyedJaggedTensor

from flm_torchrec.errors import app
from flm_torchrec.planning.calibration import Calibration
from flm_torchrec.planning.plan import Planned, make_plan
from flm_torchrec.planning.price import price
from flm_torchrec.planning.request import Request, cluster_here
from flm_torchrec.planning.tables import preset, scaled
from flm_torchrec.planning.whole_steps import TablesAlone
from flm_torchrec.training.pipeline import train_pipeline
from flm_torchrec.training.placing import AUTO, DATA_PARALLEL, SHARDING_TYPES
from flm_torchrec.training.runtime import Runtime, start
from flm_torchrec.training.sharding import shard

MIXES = ("criteo-small", "equal", "one-giant", "many-small")
PLANNED = "planned"
MOST = 60  # plans of a mix
AGAIN = 4  # of the fastest that are measured in turn with the planner's
SAMPLES = 512  # of a step, on each rank
MOST_BYTES = 2**29  # of the tables of a mix
REPEATS, WARMUP = 30, 5
TURNS = 10  # times as many repeats where a few percent decide
_ASKED = 3 + len(SHARDING_TYPES)  # plans that people ask for: they are always measured


def requests(request: Request, *, most: int) -> dict[str, Request]:
    """What to plan, by name: freely, by TorchRec's own constants, of one sharding type, of one for
    the longer half of the tables and another for the others, and of types drawn for each."""
    found = {
        PLANNED: request,
        "auto": replace(request, types=AUTO),
        "torchrec": replace(request, calibration=None),
    }
    found |= {kind: replace(request, types=(kind,)) for kind in SHARDING_TYPES}
    middle = float(np.median([table.rows for table in request.tables]))
    long = {table.name for table in request.tables if table.rows >= middle}
    for one, other in permutations(SHARDING_TYPES, 2):
        kinds = {table.name: one if table.name in long else other for table in request.tables}
        found[f"{one} over {other}"] = replace(request, constraints=kinds)
    generator = np.random.default_rng(0)
    for number in range(most // 4):
        types = generator.choice(SHARDING_TYPES, len(request.tables)).tolist()
        kinds = {table.name: kind for table, kind in zip(request.tables, types, strict=True)}
        found[f"drawn {number}"] = replace(request, constraints=kinds)
    named, others = list(found)[:_ASKED], list(found)[_ASKED:]
    drawn = generator.permutation(others)[: max(0, most - len(named))]
    names = [*named[:most], *sorted(drawn.tolist(), key=others.index)]
    return {name: found[name] for name in names}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mix:
    """Tables on the ranks there are, and batches for them."""

    runtime: Runtime
    request: Request
    batches: Sequence[KeyedJaggedTensor]

    def stepper(self, planned: Planned) -> Callable[[], object]:
        """A training step under a plan."""
        dmp, optimizer = shard(
            TablesAlone(self.request.tables),
            self.runtime.device,
            batch_size=self.request.batch_size,
            sparse_optimizer=self.request.optimizer,
            sparse_lr=0.05,
            dense_optimizer=lambda named: torch.optim.SGD([p for _, p in named]),
            planner=planned.of_model,
        )
        pipeline = train_pipeline(dmp, optimizer, self.runtime.device)
        source = cycle(self.batches)
        return lambda: pipeline.progress(source)

    def milliseconds(
        self, step: Callable[[], object], *, repeats: int, warmup: int = 0
    ) -> list[float]:
        """(repeats,) of the slowest rank."""
        seconds = repeat(step, self.runtime.device, steps=repeats, warmup=warmup)
        return (1e3 * slowest(seconds)).tolist()

    def measure(self, planned: Planned, *, repeats: int) -> list[float]:
        """(repeats,) milliseconds of a plan."""
        return self.milliseconds(self.stepper(planned), repeats=repeats, warmup=WARMUP)

    def in_turn(self, plans: Sequence[Planned], *, repeats: int) -> list[float]:
        """Median milliseconds of each plan, one after the other, again and again."""
        steps = [self.stepper(planned) for planned in plans]
        for step in steps:
            self.milliseconds(step, repeats=WARMUP)
        ways = [partial(self._once, step) for step in steps]
        return in_turn(ways, repeats=repeats)[0]

    def _once(self, step: Callable[[], object]) -> float:
        return self.milliseconds(step, repeats=1)[0]


def mix_of(name: str, runtime: Runtime, calibration: Calibration) -> Mix:
    """A preset cut to what several plans of it may take."""
    tables = scaled(preset(name), most_bytes=MOST_BYTES)
    batches = make_batches(
        tables,
        SAMPLES * runtime.world_size,
        "uniform",
        seed=0,
        rank=runtime.rank,
        world_size=runtime.world_size,
    )
    request = Request(
        tables=tuple(tables),
        cluster=cluster_here(runtime),
        batch_size=SAMPLES,
        types=SHARDING_TYPES,
        calibration=calibration,
    )
    features = [part.features.to(runtime.device) for part in batches.parts if part.features]
    return Mix(runtime=runtime, request=request, batches=features)


def planned_on_first(mix: Mix, request: Request) -> Planned | None:
    """The plan of rank 0 on all ranks; None where there is none."""
    made: list[Planned | None] = [None]
    if mix.runtime.rank == 0:
        plan = make_plan(request)
        made = [plan if isinstance(plan, Planned) else None]
    dist.broadcast_object_list(made, 0)
    return made[0]


def compare(name: str, mix: Mix, journal: Journal, *, most: int, repeats: int) -> None:
    """Measure the plans of a mix that have no line yet, then the best of them in turn."""
    plans: dict[str, Planned] = {}
    for told, request in requests(mix.request, most=most).items():
        planned = planned_on_first(mix, request)
        if planned is None or any(_same(planned, other) for other in plans.values()):
            continue
        plans[told] = planned
        if journal.has(name, told):
            continue
        seconds = mix.measure(planned, repeats=repeats)
        journal.add(
            {
                "mix": name,
                "plan": told,
                "ranks": mix.runtime.world_size,
                "ms": float(np.median(seconds)),
                "quartiles_ms": np.quantile(seconds, [0.25, 0.75]).tolist(),
                "predicted_ms": price(mix.request, planned.as_torchrec).step_ms,
                "torchrec_ms": price(
                    replace(mix.request, calibration=None), planned.as_torchrec
                ).step_ms,
                "data_parallel": DATA_PARALLEL in planned.sharding.values(),
            }
        )
    if not journal.has(name, None):
        # The file may hold others, of a call with a larger --most.
        medians = {told: ms for told, ms in journal.medians(name).items() if told in plans}
        fastest = sorted((told for told in medians if told != PLANNED), key=medians.__getitem__)
        names = [PLANNED, *fastest[:AGAIN]]
        again = mix.in_turn([plans[told] for told in names], repeats=TURNS * repeats)
        journal.add(
            {
                "mix": name,
                "ranks": mix.runtime.world_size,
                "plans": len(medians),
                "again_ms": dict(zip(names, again, strict=True)),
                "ratio": again[0] / min(again),
            }
        )


def _same(one: Planned, other: Planned) -> bool:
    def where(planned: Planned) -> list[tuple[Any, ...]]:
        return [(p.table, p.sharding_type, p.kernel, p.ranks, p.shards) for p in planned.placements]

    return where(one) == where(other)


@record
@app
def main(argv: Sequence[str] | None = None) -> int:
    """Measure what has no line in the file yet."""
    parser = argparse.ArgumentParser(prog="python -m flm_benchmarks.plans", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines")
    parser.add_argument("--mixes", nargs="+", choices=MIXES, default=MIXES)
    parser.add_argument("--most", type=int, default=MOST, help="plans of a mix")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--short", action="store_true", help="calibrate by a few points, for a try")
    args = parser.parse_args(argv)
    with start() as runtime:
        path, repeats = calibration_of(args.out), args.repeats
        calibration = calibrated(path, runtime, repeats=repeats, is_short=args.short)
        journal = Journal(args.out, runtime, calibration)
        for name in args.mixes:
            mix = mix_of(name, runtime, calibration)
            compare(name, mix, journal, most=args.most, repeats=args.repeats)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
