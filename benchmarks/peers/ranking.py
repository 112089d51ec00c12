"""Peers that rank all items for users they know: `python -m flm_benchmarks.peers.ranking`."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from flm_benchmarks.peers import collaborative, learned
from flm_benchmarks.peers.split_log import TRAIN, SplitLog, next_items
from flm_benchmarks.peers.top_items import ndcg, popularity, top_items
from flm_benchmarks.peers.units import Answer, Peer, Setting, main
from numpy.typing import NDArray
from scipy import sparse

K = 10


def quality(log: SplitLog, top: NDArray[np.int64], part: int) -> float:
    """NDCG@10."""
    return ndcg(log, next_items(log, part), top, K)


def top_of(log: SplitLog, scores: learned.Scores) -> Answer:
    """The lists that scores give, of all that came before a part."""
    popular = popularity(log, log.part == TRAIN)

    def answer(part: int) -> NDArray[np.int64]:
        search = next_items(log, part)
        return top_items(log, search, scores(search.known), popular)

    return answer


def popular_items(log: SplitLog, setting: Setting, seed: int) -> Iterator[Answer]:
    """The same for everybody."""
    del setting, seed
    popular = popularity(log, log.part == TRAIN)
    yield top_of(log, lambda _: np.tile(popular, (log.num_users, 1)))


def item_to_item(
    weights: Callable[[sparse.csr_matrix, Setting], Any],
    log: SplitLog,
    setting: Setting,
    seed: int,
) -> Iterator[Answer]:
    """Fitted on training; a history may be longer."""
    del seed
    fitted = weights(log.matrix(log.part == TRAIN), setting)
    yield top_of(log, lambda known: collaborative.history_scores(log, known, fitted))


def in_rounds(
    train: Callable[[SplitLog, Setting, int], Iterator[learned.Scores]],
    log: SplitLog,
    setting: Setting,
    seed: int,
) -> Iterator[Answer]:
    """Trained step by step."""
    for scores in train(log, setting, seed):
        yield top_of(log, scores)


PEERS = {
    "popularity": Peer(fit=popular_items, quality=quality, grid="popularity"),
    "item_knn": Peer(
        fit=partial(item_to_item, collaborative.item_knn), quality=quality, grid="item_knn"
    ),
    "ease": Peer(fit=partial(item_to_item, collaborative.ease), quality=quality, grid="ease"),
    "slim": Peer(fit=partial(item_to_item, collaborative.slim), quality=quality, grid="slim"),
    "bpr": Peer(fit=partial(in_rounds, learned.bpr), quality=quality, grid="bpr", is_random=True),
    "sasrec": Peer(
        fit=partial(in_rounds, learned.sasrec), quality=quality, grid="sasrec", is_random=True
    ),
}

if __name__ == "__main__":
    raise SystemExit(main("ranking", PEERS))
