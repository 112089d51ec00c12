"""`flm evaluate`: rank the whole catalogue for every user, beside baselines on the same split."""

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flm_apps.run_folder import add_to_report, read_report
from flm_apps.trained import load_run, peak_memory_gib
from torch.distributed.elastic.multiprocessing.errors import record

from flm_torchrec.assemble import Assembly
from flm_torchrec.data.dataset import TRAIN, VALIDATION
from flm_torchrec.errors import app
from flm_torchrec.evaluation.baselines import (
    BiasModel,
    content_knn,
    ease,
    item_knn,
    popularity,
)
from flm_torchrec.evaluation.ranking import evaluate, items_before
from flm_torchrec.measure import (
    PARTS,
    Part,
    head_quality,
    label_metrics,
    ranking_quality,
    ranking_task,
)
from flm_torchrec.training.runtime import barrier, start


def baseline_quality(assembly: Assembly, part: Part) -> dict[str, dict[str, float]]:
    """Metrics of the baselines on the same split, history and catalogue; no collectives."""
    dataset = assembly.dataset
    interactions, num_items = dataset.interactions, len(dataset.items.ids)
    met = partial(items_before, interactions.item, interactions.part, interactions.user_offsets)
    train, history = met(before_part=VALIDATION), met(before_part=PARTS[part])
    scorers = {
        "popularity": popularity(train, num_items=num_items),
        "item_knn": item_knn(train, history, num_items=num_items),
        "ease": ease(train, history, num_items=num_items),
    }
    if assembly.model.flm.text_view is not None:
        scorers["content_knn"] = content_knn(assembly.model.flm.text_view.vectors, history)
    task = ranking_task(dataset, part)
    baselines: dict[str, dict[str, float]] = {
        name: evaluate(score, task, num_items=num_items).mean for name, score in scorers.items()
    }
    if "rating" in dataset.levels:
        baselines["bias"] = bias_quality(assembly, part)
    return baselines


def bias_quality(assembly: Assembly, part: Part) -> dict[str, float]:
    """The rating that user and item biases predict, as a prediction of every label."""
    dataset = assembly.dataset
    interactions = dataset.interactions
    is_train = interactions.part == TRAIN
    model = BiasModel.fit(
        interactions.user[is_train],
        interactions.item[is_train],
        interactions.labels["rating"][is_train],
        num_users=len(dataset.users.ids),
        num_items=len(dataset.items.ids),
    )
    edges = np.flatnonzero(interactions.part == PARTS[part])
    prediction = model.predict(interactions.user[edges], interactions.item[edges])
    metrics = label_metrics(dataset, edges, dict.fromkeys(interactions.labels, prediction))
    # A rating is no probability: of a binary label only the order can be compared.
    return {name: value for name, value in metrics.items() if not name.startswith("log_loss")}


@record
@app
def main(argv: Sequence[str] | None = None) -> int:
    """Add the metrics of one part of the split, and the baselines', to the run's report."""
    parser = argparse.ArgumentParser(prog="flm evaluate", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the folder of a trained run")
    parser.add_argument("--part", choices=list(PARTS), default="test")
    args = parser.parse_args(argv)
    begin_time = time.perf_counter()
    with start() as runtime:
        assembly = load_run(args.run, runtime)
        retrieval = assembly.retrieval()
        result = ranking_quality(assembly, part=args.part, retrieval=retrieval)
        metrics = result.mean | head_quality(assembly, part=args.part, retrieval=retrieval)
        peak = peak_memory_gib(runtime)
        if runtime.rank == 0:
            baselines = baseline_quality(assembly, args.part)
            entries: dict[str, Any] = {
                args.part: metrics,
                # The report sets `test` beside `baselines`.
                "baselines" if args.part == "test" else f"{args.part}_baselines": baselines,
                "peak_memory_gib": max(peak, read_report(args.run).get("peak_memory_gib", 0.0)),
                "seconds": {"evaluate": time.perf_counter() - begin_time},
            }
            add_to_report(args.run, entries)
            print_table(args.part, metrics, baselines)
        barrier()
    return 0


def print_table(
    part: str, metrics: dict[str, float], baselines: dict[str, dict[str, float]]
) -> None:
    """Metrics as columns, the run and the baselines as rows."""
    rows = {"FLM": metrics, **baselines}
    names = list(metrics)
    print(f"{part:<12}" + "".join(f"{name:>16}" for name in names))
    for row, values in rows.items():
        cells = [f"{values[name]:.4f}" if name in values else "" for name in names]
        print(f"{row:<12}" + "".join(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    raise SystemExit(main())
