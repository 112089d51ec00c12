"""Which users of which domain a step sees."""

import numpy as np
import pytest

from flm_torchrec.data.domain_sampling import DomainUserSampler, domain_shares, draws_of_users
from flm_torchrec.data.sampling import Sequences, visits

# Users 1 to 8 with 8 interactions each are of domain 1, users 9 and 10 with 2 each of domain 2.
COUNTS = np.array([0, *[8] * 8, 2, 2])
DOMAIN = np.array([0, *[1] * 8, 2, 2])
SEQS = Sequences(events=np.arange(68), offsets=np.append(0, COUNTS.cumsum()))


def sampler(temperature: float, *, seed: int = 0) -> DomainUserSampler:
    return DomainUserSampler(
        SEQS,
        domain=DOMAIN,
        temperature=temperature,
        users=4,
        window=3,
        reverse=0.5,
        seed=seed,
    )


def test_a_higher_temperature_is_more_even() -> None:
    assert domain_shares(SEQS, DOMAIN, 1.0).tolist() == pytest.approx([64 / 68, 4 / 68])
    assert domain_shares(SEQS, DOMAIN, 2.0).tolist() == pytest.approx([8 / 10, 2 / 10])
    assert domain_shares(SEQS, DOMAIN, 1e9).tolist() == pytest.approx([0.5, 0.5])


def test_a_domain_without_training_is_never_drawn() -> None:
    domain = np.where(DOMAIN == 2, 3, DOMAIN)
    assert domain_shares(SEQS, domain, 2.0).tolist() == pytest.approx([0.8, 0.0, 0.2])


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_domains_are_drawn_as_often_as_the_temperature_says(temperature: float) -> None:
    draw = sampler(temperature)
    users = np.concatenate([draw(step).user for step in range(3000)])
    share = domain_shares(SEQS, DOMAIN, temperature)
    assert np.bincount(DOMAIN[users])[1:] / len(users) == pytest.approx(share, abs=0.01)
    # Each user as often as the correction of negatives drawn from the batch has it.
    shown = visits(SEQS, 3)
    expected = (draws_of_users(SEQS, DOMAIN, temperature, 3) * shown / shown.sum())[1:]
    assert np.bincount(users)[1:] / len(users) == pytest.approx(expected, abs=0.01)


def test_a_step_is_a_function_of_seed_and_step() -> None:
    first, second = sampler(2.0), sampler(2.0)
    for step in (2500, 3, 1024, 1023):
        one, other = first(step), second(step)
        assert one.user.tolist() == other.user.tolist()
        assert one.first.tolist() == other.first.tolist()
        assert len(one.user) == 4
    assert any(sampler(2.0, seed=1)(s).user.tolist() != first(s).user.tolist() for s in range(5))


def test_an_epoch_of_a_domain_has_all_windows_of_its_users() -> None:
    draw = sampler(2.0)
    users = np.concatenate([draw(step).user for step in range(1200)])
    for number, own in ((1, range(1, 9)), (2, (9, 10))):
        counts = np.bincount(users)[list(own)]
        assert counts.sum() == (DOMAIN[users] == number).sum()
        assert counts.max() - counts.min() <= visits(SEQS, 3)[own[0]]
