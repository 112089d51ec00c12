"""Users of several domains in one step, each domain as often as its size and a temperature say."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flm_torchrec.data.sampling import Rows, Sequences, UserSampler, visits

_CHUNK = 1024  # steps whose domains are drawn at once


def domain_shares(seqs: Sequences, domain: Rows, temperature: float) -> NDArray[np.float64]:
    """domain (num_users,) from 1 -> (D,) how likely a drawn user is of each: p ~ n ** (1 / T) with
    n interactions, so that a higher temperature is more even (Devlin, 2018, multilingual BERT)."""
    count = np.bincount(domain, np.diff(seqs.offsets))[1:]
    weight = (count / max(1.0, count.max())) ** (1 / temperature)
    return weight / weight.sum()


def draws_of_users(
    seqs: Sequences, domain: Rows, temperature: float, window: int
) -> NDArray[np.float64]:
    """domain (num_users,) from 1 -> (num_users,) how often each user's windows are drawn, over how
    often they are without domains."""
    share = np.append(0.0, domain_shares(seqs, domain, temperature))
    shown = np.bincount(domain, visits(seqs, window), minlength=len(share))
    shown[0] = 0  # of the unknown ones
    return (share * shown.sum() / np.maximum(1, shown))[domain]


class DomainUserSampler(UserSampler):
    """A `UserSampler` whose users come from domains by `domain_shares`.

    `domain` (num_users,) is the number of each user's, from 1; unknown users are not drawn. Within
    a domain users come in its own epochs, as those of a `UserSampler`.
    """

    def __init__(
        self,
        seqs: Sequences,
        *,
        domain: Rows,
        temperature: float,
        users: int,
        window: int,
        reverse: float,
        shuffle_ties: bool = False,
        ahead: int = 1,
        hide_users: float = 0.0,
        seed: int,
    ) -> None:
        super().__init__(
            seqs,
            users=users,
            window=window,
            reverse=reverse,
            shuffle_ties=shuffle_ties,
            ahead=ahead,
            hide_users=hide_users,
            seed=seed,
        )
        self.share = domain_shares(seqs, domain, temperature)
        of, num_domains = domain[self.shown], len(self.share)
        self.pools = [self.shown[of == number] for number in range(1, 1 + num_domains)]
        # Kept for the steps to come, also when several threads ask.
        self.counts = lru_cache(maxsize=2)(self._counts)
        self.pool_order = lru_cache(maxsize=4 * num_domains)(self._pool_order)
        self.before = lru_cache(maxsize=2)(self._before)

    def _counts(self, chunk: int) -> Rows:
        """(_CHUNK, D) users of each domain in the steps of a chunk."""
        rng = np.random.default_rng((self.seed, 2, chunk))
        return rng.multinomial(self.users, self.share, size=_CHUNK)

    def _pool_order(self, number: int, epoch: int) -> Rows:
        rng = np.random.default_rng((self.seed, 3, number, epoch))
        return rng.permutation(self.pools[number])

    def _before(self, chunk: int) -> Rows:
        """(D,) users of each domain in all earlier chunks."""
        before = np.zeros(len(self.share), dtype=np.int64)
        for earlier in range(chunk):
            before += self._counts(earlier).sum(0)
        return before

    def drawn(self, step: int) -> Rows:
        """(U,) the users of a step, those of a domain apart: each rank's share is a mixture."""
        chunk, place = divmod(step, _CHUNK)
        counts = self.counts(chunk)
        first = self.before(chunk) + counts[:place].sum(0)
        users: list[Rows] = []
        for number, pool in enumerate(self.pools):
            count = counts[place, number]
            epoch, spot = np.divmod(first[number] + np.arange(count), max(1, len(pool)))
            users += [self.pool_order(number, e)[spot[epoch == e]] for e in np.unique(epoch)]
        rng = np.random.default_rng((self.seed, 4, step))
        return rng.permutation(np.concatenate(users))
