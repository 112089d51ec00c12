"""Peers that rank all items for users they know: `python -m flm_benchmarks.peers.ranking`."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from flm_benchmarks.peers import collaborative, learned
from flm_benchmarks.peers.split_log import TRAIN, Searching, SplitLog, earlier, next_items
from flm_benchmarks.peers.top_items import ndcg, popularity, top_items
from flm_benchmarks.peers.units import Answer, Fit, Peer, Setting, main
from numpy.typing import NDArray
from scipy import sparse

K = 10


def quality(log: SplitLog, top: NDArray[np.int64], part: int) -> float:
    """NDCG@10."""
    return ndcg(log, next_items(log, part), top, K)


def top_of(log: SplitLog, scores: learned.Scores) -> Answer:
    """The lists that scores give, of all that came before a part."""
    popular = popularity(log, log.part == TRAIN)

    def answer(part: int, searching: Searching = next_items) -> NDArray[np.int64]:
        search = searching(log, part)
        return top_items(log, search, scores(search.history), popular)

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


def ranking_peer(name: str, fit: Fit, *, is_random: bool = False) -> Peer:
    """A peer with the grid `name`, whose choice is also asked with strictly earlier history."""
    also = {"earlier": earlier}
    return Peer(fit=fit, quality=quality, grid=name, is_random=is_random, also=also)


PEERS = {
    "popularity": ranking_peer("popularity", popular_items),
    "item_knn": ranking_peer("item_knn", partial(item_to_item, collaborative.item_knn)),
    "ease": ranking_peer("ease", partial(item_to_item, collaborative.ease)),
    "slim": ranking_peer("slim", partial(item_to_item, collaborative.slim)),
    "bpr": ranking_peer("bpr", partial(in_rounds, learned.bpr), is_random=True),
    "sasrec": ranking_peer("sasrec", partial(in_rounds, learned.sasrec), is_random=True),
}

if __name__ == "__main__":
    raise SystemExit(main("ranking", PEERS))
