"""How good a run is in each of its domains, where a user's own domain alone is ranked."""

from dataclasses import replace
from math import isfinite

import numpy as np
import torch

from flm_torchrec.data.dataset import Dataset, Domains
from flm_torchrec.evaluation.ranking import Score, judge
from flm_torchrec.measure import Answers, metrics_of


def metrics_by_domain(dataset: Dataset, said: Answers) -> dict[str, dict[str, float]]:
    """The metrics of the answers by domain, without what is undefined in it; {} where the data are
    no domains."""
    domains = dataset.domains
    if domains is None:
        return {}
    return {
        name: {
            metric: value
            for metric, value in _metrics(dataset, said, domains, number).items()
            if isfinite(value)
        }
        for number, name in enumerate(domains.names, start=1)
    }


def _metrics(dataset: Dataset, said: Answers, domains: Domains, number: int) -> dict[str, float]:
    own = _of_domain(said, domains, number)
    # Shares of its own items.
    share = np.count_nonzero(domains.items == number) / (len(domains.items) - 1)
    return {
        name: value / share if name.startswith("coverage") else value
        for name, value in metrics_of(dataset, own).items()
    }


def _of_domain(said: Answers, domains: Domains, number: int) -> Answers:
    """What is said of one domain's users and interactions."""
    task, ranking = said.task, said.ranking
    if task is not None and ranking is not None:
        rows = np.flatnonzero(domains.users[task.users] == number)
        task = task.take(rows)
        topk, num_items = ranking.topk[rows], len(domains.items)
        ranking = judge(topk, task, num_items=num_items) if len(rows) else None
    is_own = domains.interactions[said.edges] == number
    kept = torch.from_numpy(is_own)
    return replace(
        said,
        task=task,
        ranking=ranking,
        edges=said.edges[is_own],
        score=None if said.score is None else said.score[kept],
        labels={name: label[kept] for name, label in said.labels.items()},
    )


def within_domains(score: Score, dataset: Dataset) -> Score:
    """The same scores with items of other domains than a user's at -inf."""
    domains = dataset.domains
    if domains is None:
        return score

    def within(users: np.ndarray) -> torch.Tensor:
        scores = score(users)
        is_other = torch.from_numpy(domains.is_other(users))
        return scores.masked_fill(is_other.to(scores.device), -torch.inf)

    return within
