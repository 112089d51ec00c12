"""The labels of other events, as a factorisation reads them: by hand, and on what it was fitted."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_model
import torch
from torch import Tensor

from flm_torchrec.data.batch import FLMBatch
from flm_torchrec.tasks.label_factors import LabelFactors, packed, with_cold
from flm_torchrec.tasks.label_factors_fit import Factors, Labelled, fit_factors

NUM_USERS, NUM_ITEMS, DIM = 60, 30, 3
NONE = float("nan")


def factors_of(seed: int) -> Factors:
    """Any numbers that are variances where they must be."""
    made = torch.Generator().manual_seed(seed)
    spread = torch.rand(4, DIM, DIM, generator=made) * 0.3
    return Factors(
        row=torch.randn(4, DIM, generator=made),
        covariance=spread @ spread.transpose(1, 2),
        told=torch.randn(4, DIM, generator=made),
        mean=torch.tensor(0.2),
        noise=torch.tensor(0.5),
        user_precision=torch.rand(DIM, generator=made) + 0.5,
        item_variance=torch.rand(DIM, generator=made) + 0.1,
    )


def module(*fits: Factors, any_order: bool) -> LabelFactors:
    made = LabelFactors([0], rank=DIM - 1, any_order=any_order)
    tables, commons = zip(*map(packed, fits), strict=True)
    made.table, made.common = torch.stack(tables)[:, :, None], torch.stack(commons)[:, None]
    return made


def told(batch: FLMBatch, *labels: float) -> FLMBatch:
    """The batch of one user with such labels of the events."""
    assert batch.users is not None
    values = torch.tensor(labels)[None, :, None]
    return replace(batch, users=replace(batch.users, event_labels=values))


def expected(fit: Factors, events: dict[int, float], item: int) -> float:
    """The posterior of one user by the formula, event by event."""
    precision, pulled = torch.diag(fit.user_precision), torch.zeros(DIM)
    prior = torch.zeros(DIM)
    for event, label in events.items():
        prior += fit.told[event] / len(events) ** 0.5
        if np.isnan(label):
            continue
        bias, vector = fit.row[event, 0], fit.row[event, 1:]
        seen = torch.cat([torch.ones(1), vector])
        spread = fit.covariance[event].clone()
        with_bias = spread[:, 0].clone()
        spread[0], spread[:, 0], with_bias[0] = 0, 0, 0
        precision = precision + (torch.outer(seen, seen) + spread) / fit.noise
        pulled = pulled + (seen * (label - fit.mean - bias) - with_bias) / fit.noise
    row = torch.linalg.solve(precision, pulled + fit.user_precision * prior)
    seen = torch.cat([torch.ones(1), fit.row[item, 1:]])
    return float(fit.mean + fit.row[item, 0] + row @ seen)


@pytest.mark.parametrize(
    ("any_order", "others"),
    [
        (True, [{2: -1.0, 3: NONE}, {1: 0.5, 3: NONE}, {1: 0.5, 2: -1.0}]),
        (False, [{}, {1: 0.5}, {1: 0.5, 2: -1.0}]),
    ],
)
def test_an_edge_is_foretold_by_the_events_it_may_read(any_order, others):
    fit = factors_of(0)
    batch = told(tiny_model.batch([[1, 2, 3]], item_row=range(4)), 0.5, -1.0, NONE)
    said = module(fit, fit, any_order=any_order).eval()(batch)
    wanted = [expected(fit, events, item) for item, events in enumerate(others, 1)]
    assert said[:, 0].tolist() == pytest.approx(wanted, abs=1e-4)


def test_in_training_a_user_is_read_by_the_fit_of_the_others():
    fits = [factors_of(seed) for seed in (0, 1, 2)]
    made = module(*fits, any_order=True)
    batch = told(tiny_model.batch([[1, 2, 3]], item_row=range(4)), 0.5, -1.0, 0.0)
    assert batch.users is not None
    for row, fold in ((4, 1), (5, 2)):
        of_row = replace(batch, users=replace(batch.users, row=torch.tensor([row])))
        wanted = expected(fits[fold], {2: -1.0, 3: 0.0}, 1)
        assert float(made.train()(of_row)[0, 0]) == pytest.approx(wanted, abs=1e-4)
        assert float(made.eval()(of_row)[0, 0]) == pytest.approx(
            expected(fits[0], {2: -1.0, 3: 0.0}, 1), abs=1e-4
        )


def test_a_cold_item_is_as_its_likes_and_as_uncertain_as_any():
    fit = factors_of(0)
    made = module(fit, fit, any_order=True)
    warm, cold = torch.tensor([1, 2]), torch.tensor([3])
    content = torch.tensor([[0.0], [-100], [100], [50]])  # so far apart that the ridge is exact
    share = torch.tensor([[0.25, 0.75]])
    table = with_cold(made.table, made.common, warm, cold, content)
    row = share @ fit.row[warm]
    spread = torch.diag(fit.item_variance)[None]
    like = replace(
        fit,
        row=torch.cat([fit.row[:3], row]),
        covariance=torch.cat([fit.covariance[:3], spread]),
        told=torch.cat([fit.told[:3], share @ fit.told[warm]]),
    )
    torch.testing.assert_close(table[0, :, 0], packed(like)[0], atol=1e-3, rtol=1e-3)


def labelled(share: float) -> tuple[Labelled, Tensor]:
    """A log of which `share` of the labels is known -> it, and all true labels (users, items)."""
    made = torch.Generator().manual_seed(3)
    user, item = (torch.randn(size, 2, generator=made) for size in (NUM_USERS, NUM_ITEMS))
    bias = torch.randn(NUM_ITEMS, generator=made)
    true = 0.5 + bias + user @ item.T
    noisy = true + 0.1 * torch.randn(true.shape, generator=made)
    users, items = np.nonzero((torch.rand(true.shape, generator=made) < share).numpy())
    log = Labelled(
        user=users,
        item=items,
        label=noisy[users, items],
        met_user=users,
        met_item=items,
        num_users=NUM_USERS,
        num_items=NUM_ITEMS,
    )
    return log, true


def test_the_fit_finds_labels_that_it_has_not_seen():
    log, true = labelled(0.6)
    fit = fit_factors(log, rank=2)
    made = module(fit, fit, any_order=False).eval()
    errors, spread = [], []
    for user in range(8):
        met = log.user == user
        known = log.item[met]
        unknown = np.setdiff1d(np.arange(NUM_ITEMS), known)[:1]
        batch = tiny_model.batch([[*known.tolist(), int(unknown[0])]], item_row=range(NUM_ITEMS))
        said = made(told(batch, *log.label[torch.from_numpy(met)].tolist(), NONE))
        errors.append(float(said[-1, 0] - true[user, unknown[0]]))
        spread.append(float(true[user, unknown[0]] - log.label.mean()))
    assert np.square(errors).mean() < 0.1 * np.square(spread).mean()
    assert float(fit.noise) == pytest.approx(0.01, rel=0.6)


@pytest.mark.parametrize("label", [[], [3.0, 3.0]])
def test_no_labels_and_equal_labels_are_foretold_as_they_are(label):
    rows = np.arange(len(label), dtype=np.int64)
    log = Labelled(
        user=rows,
        item=rows,
        label=torch.tensor(label),
        met_user=np.array([0, 1, 2]),
        met_item=np.array([0, 1, 2]),
        num_users=4,
        num_items=4,
    )
    made = module(*[fit_factors(log, rank=2)] * 2, any_order=True).eval()
    said = made(told(tiny_model.batch([[1, 2]], item_row=range(4)), NONE, NONE))
    assert said[:, 0].tolist() == pytest.approx([np.mean(label) if label else 0.0] * 2, abs=1e-3)
