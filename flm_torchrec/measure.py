"""How good a run is: ranking, head predictions and the masked language model, on any rank count."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flm_torchrec.assemble import Assembly
from flm_torchrec.data.dataset import TEST, VALIDATION, Dataset
from flm_torchrec.data.moments import impressions
from flm_torchrec.data.sampling import Histories, histories
from flm_torchrec.data.schema import ALWAYS
from flm_torchrec.evaluation.impressions import impression_metrics
from flm_torchrec.evaluation.metrics import auc, log_loss, mae, rmse
from flm_torchrec.evaluation.ranking import (
    ItemLists,
    RankingResult,
    RankingTask,
    evaluate,
    held_out_task,
    items_of_users,
)
from flm_torchrec.retrieval import evaluating
from flm_torchrec.tasks.heads import Heads
from flm_torchrec.tasks.ranking import edge_scores
from flm_torchrec.training.runtime import all_gather

Part = Literal["validation", "test"]
PARTS: dict[Part, int] = {"validation": VALIDATION, "test": TEST}


def met_where(dataset: Dataset, is_there: NDArray[np.bool_]) -> ItemLists:
    """The items that every user row met in the interactions where `is_there` (n,)."""
    interactions = dataset.interactions
    assert dataset.users is not None, "there are no users"
    return items_of_users(
        interactions.user[is_there], interactions.item[is_there], num_users=len(dataset.users.ids)
    )


def ranking_task(dataset: Dataset, part: Part) -> RankingTask:
    """Rank the items that each user wanted in `part`; what was met before is left out where nobody
    meets an item twice. Where whole items are held out, those of `part` are ranked among
    themselves."""
    interactions, schema = dataset.interactions, dataset.schema.interactions
    assert schema is not None
    assert dataset.users is not None
    task = held_out_task(
        interactions.user,
        interactions.item,
        interactions.part,
        part_to_rank=PARTS[part],
        num_users=len(dataset.users.ids),
        is_wanted=interactions.positive,
        repeats=schema.repeats,
    )
    if dataset.schema.split_rule().kind != "item_cold":
        return task
    assert dataset.items is not None
    candidates = np.zeros(len(dataset.items.ids), dtype=bool)
    candidates[interactions.item[interactions.part == PARTS[part]]] = True
    return replace(task, candidates=candidates)


def history_before(dataset: Dataset, part: Part) -> Histories:
    """Every user's events before `part`: for the test, training and validation."""
    return histories(dataset.interactions, before_part=PARTS[part])


def ranks_items(assembly: Assembly) -> bool:
    """Does the run learn which item a user wants?"""
    return not {"rank", "order"}.isdisjoint(assembly.model.objective.tasks)


def ranks_catalogue(assembly: Assembly) -> bool:
    """Does the run rank all items for a user, rather than what was shown or nothing?"""
    schema = assembly.dataset.schema.interactions
    is_trained = ranks_items(assembly)
    return is_trained and schema is not None and schema.negatives == "sampled"


def catalogue_task(assembly: Assembly, part: Part) -> RankingTask | None:
    """What of `part` is to be found in the whole catalogue, from what came before; None where the
    run ranks none, or nobody has anything to find.

    Of a random split the history holds what came after as well, so it is ranked only where order
    does not matter.
    """
    is_random = assembly.dataset.schema.split_rule().kind == "random"
    in_order = not assembly.collator.finder.any_order
    if not ranks_catalogue(assembly) or (is_random and in_order):
        return None
    task = ranking_task(assembly.dataset, part)
    return task if len(task.users) else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What a run says of a part of the split; the same on every rank."""

    task: RankingTask | None  # None: it ranks no catalogue
    ranking: RankingResult | None  # of the task
    edges: NDArray[np.int64]  # (n,) interactions
    score: Tensor | None  # (n,) that orders what was shown at one time; None: it ranks no such
    labels: dict[str, Tensor]  # (n,) what each head says


def answers(assembly: Assembly, *, part: Part, block: int = 1024) -> Answers:
    """Those of the ranking where the run ranks, and of the heads where it has some; called by all
    ranks."""
    task = catalogue_task(assembly, part)
    ranking = None if task is None else ranking_quality(assembly, part=part, task=task)
    edges, score, labels = _edge_answers(assembly, part, block)
    return Answers(task=task, ranking=ranking, edges=edges, score=score, labels=labels)


def metrics_of(dataset: Dataset, said: Answers) -> dict[str, float]:
    """All metrics of the answers."""
    ranking = {} if said.ranking is None else said.ranking.mean
    return ranking | _edge_metrics(dataset, said.edges, said.score, said.labels)


def quality(assembly: Assembly, *, part: Part) -> dict[str, float]:
    """All metrics on the interactions of `part`; called by all ranks."""
    return metrics_of(assembly.dataset, answers(assembly, part=part))


def ranking_quality(
    assembly: Assembly, *, part: Part, task: RankingTask | None = None
) -> RankingResult:
    """Metrics of the whole catalogue ranked for every user of `part`; called by all ranks."""
    retrieval = assembly.retrieval()
    seqs = history_before(assembly.dataset, part)
    runtime, items = assembly.runtime, assembly.dataset.items
    assert items is not None, "there are no items to rank"
    return evaluate(
        lambda users: retrieval.scores(users, seqs).cpu(),
        task or ranking_task(assembly.dataset, part),
        num_items=len(items.ids),
        rank=runtime.rank,
        world_size=runtime.world_size,
        gather=all_gather,
    )


def label_metrics(
    dataset: Dataset, edges: NDArray[np.int64], predictions: Mapping[str, Tensor]
) -> dict[str, float]:
    """Over the edges (n,): auc_ and log_loss_ of binary labels, rmse_ and mae_ of ordinal and real
    ones, accuracy_ of multiclass ones.

    A prediction of a binary label that is no probability has an auc only. A label that always
    holds has no metric: nothing that was held out is its opposite.
    """
    schema = dataset.schema.interactions
    assert schema is not None
    metrics: dict[str, float] = {}
    for name, prediction in predictions.items():
        if schema.labels[name].value == ALWAYS:
            continue
        label = torch.from_numpy(dataset.interactions.labels[name][edges])
        is_there = label.isfinite()
        label, prediction = label[is_there], prediction[is_there]
        is_probability = not bool(((prediction < 0) | (prediction > 1)).any())
        kinds = {
            "binary": (auc, log_loss) if is_probability else (auc,),
            "ordinal": (rmse, mae),
            "real": (rmse, mae),
            "multiclass": (accuracy,),
        }[schema.labels[name].kind]
        metrics |= {f"{kind.__name__}_{name}": kind(prediction, label) for kind in kinds}
    return metrics


def accuracy(prediction: Tensor, label: Tensor) -> float:
    """Share of the rows where prediction (n,) equals label (n,); nan without rows."""
    return float((prediction == label).double().mean())


def edge_quality(assembly: Assembly, *, part: Part, block: int = 1024) -> dict[str, float]:
    """Metrics of the heads on the edges of `part`, and of the order within each impression where
    ranking learns from those. Called by all ranks."""
    return _edge_metrics(assembly.dataset, *_edge_answers(assembly, part, block))


def _edge_metrics(
    dataset: Dataset, edges: NDArray[np.int64], score: Tensor | None, labels: Mapping[str, Tensor]
) -> dict[str, float]:
    if not len(edges):
        return {}
    metrics = label_metrics(dataset, edges, labels)
    return metrics if score is None else metrics | impression_quality(dataset, edges, score.numpy())


def _edge_answers(
    assembly: Assembly, part: Part, block: int
) -> tuple[NDArray[np.int64], Tensor | None, dict[str, Tensor]]:
    dataset, tasks = assembly.dataset, assembly.model.objective.tasks
    edges = np.flatnonzero(dataset.interactions.part == PARTS[part])
    orders = ranks_items(assembly) and not ranks_catalogue(assembly)
    if not (orders or "heads" in tasks) or not len(edges):
        return edges, None, {}
    seqs, own = history_before(dataset, part), assembly.runtime.share(edges)
    # A batch has an item for every event of every window.
    block = max(1, block * 16 // (16 + assembly.collator.window))
    parts = [
        _predictions(assembly, rows, seqs, orders)
        for rows in np.split(own, range(block, len(own), block))
    ]
    scores, *labels = (
        all_gather(torch.cat(blocks))[: len(edges)].cpu() for blocks in zip(*parts, strict=True)
    )
    names = list(dataset.interactions.labels) if labels else []
    return edges, scores if orders else None, dict(zip(names, labels, strict=True))


def _predictions(
    assembly: Assembly, rows: NDArray[np.int64], seqs: Histories, orders: bool
) -> list[Tensor]:
    """(n,) each: the ranking score, any number unless `orders`, and what each head says."""
    batch = assembly.collator.edge_batch(rows, seqs).to(assembly.runtime.device)
    tasks = assembly.model.objective.tasks
    with evaluating(assembly.model):
        views = assembly.model.flm(batch)
        score = edge_scores(views, batch) if orders else batch.edges.weight
        said = [h.predict(views, batch) for h in tasks.values() if isinstance(h, Heads)]
    return [score, *(prediction for labels in said for prediction in labels.values())]


def impression_quality(
    dataset: Dataset, edges: NDArray[np.int64], score: NDArray[np.float32]
) -> dict[str, float]:
    """Metrics of the order by score (n,) of what each user was shown at one time: edges (n,)."""
    interactions = dataset.interactions
    is_known = interactions.user[edges] > 0
    edges, score = edges[is_known], score[is_known]
    impression = impressions(interactions, edges)
    return impression_metrics(impression, interactions.positive[edges], score)
