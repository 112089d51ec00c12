"""How good a run is: ranking, head predictions and the masked language model, on any rank count."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flm_torchrec.assemble import Assembly
from flm_torchrec.data.collate import masked_batch
from flm_torchrec.data.dataset import TEST, VALIDATION, Dataset
from flm_torchrec.data.sampling import Sequences, sequences
from flm_torchrec.data.text import held_out_texts
from flm_torchrec.evaluation.metrics import auc, log_loss, mae, rmse
from flm_torchrec.evaluation.ranking import (
    ItemLists,
    RankingResult,
    RankingTask,
    evaluate,
    leave_one_out_task,
)
from flm_torchrec.retrieval import Retrieval, evaluating
from flm_torchrec.tasks.mlm import MaskedLM
from flm_torchrec.training.runtime import all_gather

Part = Literal["validation", "test"]
MOST_MASKED = 4096  # texts that the masked language model is measured on
PARTS: dict[Part, int] = {"validation": VALIDATION, "test": TEST}


def ranking_task(dataset: Dataset, part: Part) -> RankingTask:
    """Rank the item that each user met in `part`; what was met before is left out where nobody
    meets an item twice."""
    interactions = dataset.interactions
    task = leave_one_out_task(
        interactions.user,
        interactions.item,
        interactions.part,
        interactions.user_offsets,
        part_to_rank=PARTS[part],
    )
    if not dataset.schema.interactions.repeats:
        return task
    nothing = np.zeros(0, dtype=np.int64)
    offsets = np.zeros(len(task.users) + 1, dtype=np.int64)
    return replace(task, seen=ItemLists(values=nothing, offsets=offsets))


def history_before(dataset: Dataset, part: Part) -> Sequences:
    """Every user's events before `part`: for the test, training and validation."""
    return sequences(dataset.interactions, before_part=PARTS[part])


def ranking_quality(
    assembly: Assembly, *, part: Part, retrieval: Retrieval | None = None
) -> RankingResult:
    """Metrics of the whole catalogue ranked for every user of `part`; called by all ranks."""
    retrieval = retrieval or assembly.retrieval()
    seqs = history_before(assembly.dataset, part)
    runtime = assembly.runtime
    return evaluate(
        lambda users: retrieval.scores(users, seqs).cpu(),
        ranking_task(assembly.dataset, part),
        num_items=len(assembly.dataset.items.ids),
        rank=runtime.rank,
        world_size=runtime.world_size,
        gather=all_gather,
    )


def label_metrics(
    dataset: Dataset, edges: NDArray[np.int64], predictions: Mapping[str, Tensor]
) -> dict[str, float]:
    """auc_ and log_loss_ of binary labels, rmse_ and mae_ of ordinal ones, over the edges (n,).

    A prediction of a binary label that is no probability has an auc only.
    """
    metrics: dict[str, float] = {}
    for name, prediction in predictions.items():
        label = torch.from_numpy(dataset.interactions.labels[name][edges])
        is_there = label.isfinite()
        label, prediction = label[is_there], prediction[is_there]
        is_probability = not bool(((prediction < 0) | (prediction > 1)).any())
        binary = (auc, log_loss) if is_probability else (auc,)
        kinds = (rmse, mae) if name in dataset.levels else binary
        metrics |= {f"{kind.__name__}_{name}": kind(prediction, label) for kind in kinds}
    return metrics


def head_quality(
    assembly: Assembly, *, part: Part, retrieval: Retrieval, block: int = 256
) -> dict[str, float]:
    """Metrics of the heads on the edges of `part`; {} without heads. Called by all ranks."""
    if "heads" not in assembly.model.objective.tasks:
        return {}
    dataset, runtime = assembly.dataset, assembly.runtime
    edges = np.flatnonzero(dataset.interactions.part == PARTS[part])
    seqs = history_before(dataset, part)
    per_rank = -(-len(edges) // runtime.world_size)
    padded = np.resize(edges, per_rank * runtime.world_size)
    own = padded[runtime.rank * per_rank : (runtime.rank + 1) * per_rank]
    parts = [
        retrieval.predict(dataset.interactions.user[e], dataset.interactions.item[e], seqs)
        for e in np.split(own, range(block, len(own), block))
    ]
    predictions = {
        name: all_gather(torch.cat([p[name] for p in parts]))[: len(edges)].cpu()
        for name in parts[0]
    }
    return label_metrics(dataset, edges, predictions)


def masked_accuracy(assembly: Assembly, *, seed: int = 0) -> dict[str, float]:
    """Share of the hidden tokens of held-out texts that are found, beside that of always saying
    the most frequent token of the training texts; {} without the task."""
    text, task = assembly.collator.text, assembly.model.objective.tasks
    view = assembly.model.flm.text_view
    if "mlm" not in task or text is None or view is None:
        return {}
    head = task["mlm"]
    assert isinstance(head, MaskedLM)
    table = text.table
    rows = held_out_texts(table)[:MOST_MASKED]
    rng = np.random.default_rng(seed)
    found, target = [], []
    with evaluating(assembly.model):
        for start in range(0, len(rows), 64):
            batch = masked_batch(table, rows[start : start + 64], rng, own=slice(None))
            batch = batch.to(assembly.runtime.device)
            is_hidden = batch.target != -100
            states = view.token_states(batch.tokens, batch.attention)[is_hidden]
            found.append(head.logits(states, view.token_embedding()).argmax(1))
            target.append(batch.target[is_hidden])
    is_found = torch.cat(found) == torch.cat(target)
    trained = table.tokens[text.masked_pool][table.is_word[text.masked_pool]]
    most_frequent = int(np.bincount(trained).argmax())
    return {
        "accuracy": float(is_found.float().mean()),
        "most_frequent": float((torch.cat(target) == most_frequent).float().mean()),
    }
