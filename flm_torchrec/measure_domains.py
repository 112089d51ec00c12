"""How good a run is in each of its domains, where a user's own domain alone is ranked."""

from math import isfinite

import numpy as np
import torch

from flm_torchrec.assemble import Assembly
from flm_torchrec.data.dataset import Dataset, Domains
from flm_torchrec.evaluation.ranking import RankingTask, Score
from flm_torchrec.measure import Part, catalogue_task, edge_quality, ranking_quality


def quality_of_domains(assembly: Assembly, *, part: Part) -> dict[str, dict[str, float]]:
    """By domain the metrics of `quality`, without what is undefined in it; {} where the data are
    no domains. Called by all ranks."""
    domains = assembly.dataset.domains
    if domains is None:
        return {}
    return {
        name: {
            metric: value
            for metric, value in _quality(assembly, part, domains, number).items()
            if isfinite(value)
        }
        for number, name in enumerate(domains.names, start=1)
    }


def _quality(assembly: Assembly, part: Part, domains: Domains, number: int) -> dict[str, float]:
    edges = edge_quality(assembly, part=part, domain=number)
    task = catalogue_task(assembly, part)
    task = task and _of_domain(task, domains, number)
    if task is None:
        return edges
    ranking = ranking_quality(assembly, part=part, task=task).mean
    # Shares of its own items.
    share = np.count_nonzero(domains.items == number) / (len(domains.items) - 1)
    return {
        name: value / share if name.startswith("coverage") else value
        for name, value in ranking.items()
    } | edges


def _of_domain(task: RankingTask, domains: Domains, number: int) -> RankingTask | None:
    """For the users of one domain; None where nobody of it has anything to find."""
    rows = np.flatnonzero(domains.users[task.users] == number)
    if not len(rows):
        return None
    return RankingTask(
        users=task.users[rows], seen=task.seen.take(rows), targets=task.targets.take(rows)
    )


def within_domains(score: Score, dataset: Dataset) -> Score:
    """The same scores with items of other domains than a user's at -inf."""
    domains = dataset.domains
    if domains is None:
        return score
    of_user, of_item = torch.from_numpy(domains.users), torch.from_numpy(domains.items)

    def within(users: np.ndarray) -> torch.Tensor:
        is_other = of_user[torch.from_numpy(users)][:, None] != of_item
        scores = score(users)
        return scores.masked_fill(is_other.to(scores.device), -torch.inf)

    return within
