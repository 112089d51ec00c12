"""`flm evaluate`: rankings and head predictions of a run, beside baselines on the same split."""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flm_apps.run_folder import add_to_report, read_report
from flm_apps.trained import load_run, peak_memory_gib
from torch.distributed.elastic.multiprocessing.errors import record

from flm_torchrec.assemble import Assembly
from flm_torchrec.data.dataset import TRAIN, VALIDATION
from flm_torchrec.data.told import one_class_labels
from flm_torchrec.diagnosis import diagnosis, map_of_items
from flm_torchrec.errors import app
from flm_torchrec.evaluation.baselines import (
    BiasModel,
    content_knn,
    ease,
    item_knn,
    popularity,
)
from flm_torchrec.evaluation.diagnostics import Diagnostics
from flm_torchrec.evaluation.item_map import ITEM_MAP, write_item_map
from flm_torchrec.evaluation.ranking import RankingTask, evaluate
from flm_torchrec.evaluation.representation import MEANINGS
from flm_torchrec.measure import (
    PARTS,
    Part,
    answers,
    catalogue_task,
    label_metrics,
    met_where,
    metrics_of,
)
from flm_torchrec.measure_domains import metrics_by_domain, within_domains
from flm_torchrec.measure_hidden import cloze_accuracy
from flm_torchrec.training.runtime import barrier, start

# Each of a catalogue's pairs is a number of theirs: 3 GB.
MOST_ITEMS = 20_000


def baseline_quality(assembly: Assembly, part: Part) -> dict[str, dict[str, float]]:
    """Metrics of the baselines that the data allows, on the same split, history and catalogue; no
    collectives."""
    baselines: dict[str, dict[str, float]] = {}
    task = catalogue_task(assembly, part)
    if task is not None:
        baselines |= ranking_baselines(assembly, part, task)
    dataset = assembly.dataset
    if "rating" in dataset.levels and dataset.users is not None and dataset.items is not None:
        baselines["bias"] = bias_quality(assembly, part)
    return baselines


def ranking_baselines(
    assembly: Assembly, part: Part, task: RankingTask
) -> dict[str, dict[str, float]]:
    """Rankings of what users wanted, by what they and others wanted before."""
    dataset, text_view = assembly.dataset, assembly.model.flm.text_view
    assert dataset.items is not None
    interactions, num_items = dataset.interactions, len(dataset.items.ids)
    wanted = interactions.positive
    train = met_where(dataset, wanted & (interactions.part < VALIDATION))
    history = met_where(dataset, wanted & (interactions.part < PARTS[part]))
    scorers = {"popularity": popularity(train, num_items=num_items)}
    if num_items <= MOST_ITEMS:
        scorers |= {
            "item_knn": item_knn(train, history, num_items=num_items),
            "ease": ease(train, history, num_items=num_items),
        }
    else:
        print(f"without item_knn and ease, which compare {MOST_ITEMS:,} items at most")
    if text_view is not None and text_view.names:
        texts = text_view.vectors.transpose(0, 1).flatten(1)  # side by side
        scorers["content_knn"] = content_knn(texts, history)
    return {
        name: evaluate(within_domains(score, dataset), task, num_items=num_items).mean
        for name, score in scorers.items()
    }


def bias_quality(assembly: Assembly, part: Part) -> dict[str, float]:
    """The rating that user and item biases predict, and how it orders the binary labels."""
    dataset = assembly.dataset
    interactions, schema = dataset.interactions, dataset.schema.interactions
    assert schema is not None
    assert dataset.users is not None
    assert dataset.items is not None
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
    labels = [
        name for name, label in schema.labels.items() if label.kind == "binary" or name == "rating"
    ]
    metrics = label_metrics(dataset, edges, dict.fromkeys(labels, prediction))
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
        said = answers(assembly, part=args.part)
        metrics, cloze = metrics_of(assembly.dataset, said), cloze_accuracy(assembly)
        domains = metrics_by_domain(assembly.dataset, said)
        diagnosed, mapped = diagnosis(assembly), map_of_items(assembly)
        peak = peak_memory_gib(runtime)
        if runtime.rank == 0:
            if mapped is not None:
                write_item_map(args.run / ITEM_MAP, mapped)
            # The report sets `test` beside `baselines` and `domains`.
            prefix = "" if args.part == "test" else f"{args.part}_"
            found = {"cloze": cloze, f"{prefix}domains": domains}
            if undefined := undefined_metrics(assembly, args.part):
                found["undefined"] = {args.part: undefined}
            found = {name: entry for name, entry in found.items() if entry}
            # Before the baselines, which take their time.
            add_to_report(args.run, {args.part: metrics, **diagnostics_entries(diagnosed), **found})
            baselines = baseline_quality(assembly, args.part)
            entries: dict[str, Any] = {
                f"{prefix}baselines": baselines,
                "peak_memory_gib": max(peak, read_report(args.run).get("peak_memory_gib", 0.0)),
                "seconds": {"evaluate": time.perf_counter() - begin_time},
            }
            add_to_report(args.run, entries)
            print_table(args.part, {"FLM": metrics, **baselines}, list(metrics))
        barrier()
    return 0


def undefined_metrics(assembly: Assembly, part: Part) -> dict[str, str]:
    """Metrics of the heads that `part` leaves undefined, each with the reason; told at once."""
    if "heads" not in assembly.model.objective.tasks:
        return {}
    dataset = assembly.dataset
    rows = np.flatnonzero(dataset.interactions.part == PARTS[part])
    reasons = {
        f"auc_{label}": f"'{label}' {reason}"
        for label, reason in one_class_labels(dataset, rows).items()
    }
    if dataset.domains is not None:
        for number, name in enumerate(dataset.domains.names, start=1):
            own = rows[dataset.domains.interactions[rows] == number]
            for label, reason in one_class_labels(dataset, own).items():
                if f"auc_{label}" not in reasons:
                    reasons[f"{name}/auc_{label}"] = f"'{label}' {reason}"
    for metric, reason in reasons.items():
        print(f"warning: {metric} of the {part} is undefined: {reason}")
    return reasons


def diagnostics_entries(found: Diagnostics | None) -> dict[str, Any]:
    """What the report holds of them; the figures of each view and its collapse are told at once."""
    if found is None:
        return {}
    print_table("items", found.figures, list(MEANINGS))
    for collapse in found.collapses:
        print(f"warning: {collapse}")
    return {"diagnostics": found.figures, "collapses": found.collapses}


def print_table(what: str, rows: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> None:
    """The figures of these names as columns, under the title `what` of the rows."""
    print(f"{what:<12}" + "".join(f"{name:>16}" for name in names))
    for row, values in rows.items():
        cells = [f"{values[name]:.4f}" if name in values else "" for name in names]
        print(f"{row:<12}" + "".join(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    raise SystemExit(main())
