"""A label as a factorisation of users and items whose rows are uncertain, in closed steps."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flm_torchrec.data.sampling import Rows

_WIDTH = 64  # directions of who met what, of which rows are foretold
_RIDGE = 1.0
_ROUNDS = 40
_ALONE = 3  # of them before rows are foretold
_LEAST_NOISE = 1e-4
_BLOCK = 65_536  # interactions


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """n interactions of which a label is known, among the m of the training part."""

    user: Rows  # (n,)
    item: Rows  # (n,)
    label: Tensor  # (n,) float32
    met_user: Rows  # (m,)
    met_item: Rows  # (m,)
    num_users: int
    num_items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """What is known of the items, and of what users have in common; d = 1 + rank."""

    row: Tensor  # (items, d) mean of (bias, vector)
    covariance: Tensor  # (items, d, d)
    told: Tensor  # (items, d) what having met the item adds to a user's row, over sqrt(events)
    mean: Tensor  # () of the label
    noise: Tensor  # () variance of a label around what the rows say
    user_precision: Tensor  # (d,) of users' rows around what is foretold of them
    item_variance: Tensor  # (d,) of items' rows


@dataclass(slots=True)
class _Side:
    """Users or items: rows (bias, vector) with their uncertainty."""

    met: Tensor  # (rows, others) sparse, how many labels are known
    total: Tensor  # (rows, others) sparse, their sum less the mean
    features: Tensor  # (rows, F) by whom or what they met
    ridge: Tensor  # (F, rows) what of rows the weight of the features is
    row: Tensor  # (rows, d)
    covariance: Tensor  # (rows, d, d)
    prior: Tensor  # (rows, d)
    precision: Tensor  # (d,)
    weight: Tensor  # (F, d) features to prior

    def update(self, other: "_Side", noise: Tensor, *, foretold: bool) -> None:
        """The posterior of all rows, given the other side's; then what is foretold of them."""
        seen, second, cross = moments(other.row, other.covariance)
        d = self.row.shape[1]
        precision = (self.met @ second.flatten(1)).view(-1, d, d) / noise
        precision += torch.diag(self.precision)
        pulled = (self.total @ seen - self.met @ cross) / noise + self.precision * self.prior
        factor = torch.linalg.cholesky(precision)
        self.row = torch.cholesky_solve(pulled[:, :, None], factor).squeeze(2)
        self.covariance = torch.cholesky_inverse(factor)
        if foretold:
            self.weight = self.ridge @ self.row
            self.prior = self.features @ self.weight
        spread = (self.row - self.prior).square() + self.covariance.diagonal(dim1=1, dim2=2)
        self.precision = 1 / spread.mean(0).clamp(min=1e-6)


def moments(row: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """row (n, d) of (bias b, vector v), covariance (n, d, d) -> with a = (1, v), by which the other
    side's row is weighed: E[a] (n, d), E[a a'] (n, d, d), E[a b] (n, d)"""
    seen = row.clone()
    seen[:, 0] = 1
    second, cross = covariance.clone(), covariance[:, :, 0].clone()
    second[:, 0], second[:, :, 0], cross[:, 0] = 0, 0, 0
    return seen, second + seen[:, :, None] * seen[:, None], cross + seen * row[:, :1]


def fit_factors(data: Labelled, *, rank: int) -> Factors:
    """Variational Bayesian matrix factorisation (Lim and Teh, KDD Cup 2007): label = mean + b_u +
    b_i + z_u v_i + noise, with normal rows of users (b_u, z_u) and of items (b_i, v_i). Their prior
    is a ridge regression on the leading directions of who met what (Agarwal and Chen, KDD 2009),
    their variances and the noise are estimated along.

    Takes about 40 (n d^2 + (users + items) d^3) operations.
    """
    mean = data.label.mean() if len(data.label) else torch.zeros(())
    users, items, told = _sides(data, mean, rank)
    noise = torch.ones(())
    for step in range(_ROUNDS if len(data.label) else 0):
        for own, other in ((users, items), (items, users)):
            own.update(other, noise, foretold=step >= _ALONE)
        noise = _noise(data, data.label - mean, users, items)
    return Factors(
        row=items.row,
        covariance=items.covariance,
        told=told @ users.weight,
        mean=mean,
        noise=noise,
        user_precision=users.precision,
        item_variance=1 / items.precision,
    )


def _sides(data: Labelled, mean: Tensor, rank: int) -> tuple[_Side, _Side, Tensor]:
    """-> users, items, and (items, F) what each adds to the features of a user who met it"""
    shape = data.num_users, data.num_items
    ones = torch.ones(len(data.label))
    met = _sparse(data.user, data.item, ones, shape)
    total = _sparse(data.user, data.item, data.label - mean, shape)
    pairs = np.unique(np.stack([data.met_user, data.met_item]), axis=1)  # met twice counts once
    every = _sparse(pairs[0], pairs[1], torch.ones(pairs.shape[1]), shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        width = min(_WIDTH, *shape)
        user_side, _, item_side = torch.svd_lowrank(every, width, niter=4)
        starts = [0.1 * torch.randn(size, 1 + rank) for size in shape]
    sides = []
    for matrix, sums, pairs, directions, start in (
        (met, total, every, item_side, starts[0]),
        (met.T, total.T, every.T, user_side, starts[1]),
    ):
        start[:, 0] = 0
        count = torch.sparse.sum(pairs, dim=1).to_dense().clamp(min=1)
        features = (_by_row(pairs) @ directions) / count.sqrt()[:, None]
        gram = features.T @ features + _RIDGE * torch.eye(features.shape[1])
        sides.append(
            _Side(
                met=_by_row(matrix),
                total=_by_row(sums),
                features=features,
                ridge=torch.linalg.solve(gram, features.T),
                row=start,
                covariance=0.01 * torch.eye(1 + rank).repeat(len(start), 1, 1),
                prior=torch.zeros_like(start),
                precision=torch.ones(1 + rank),
                weight=torch.zeros(directions.shape[1], 1 + rank),
            )
        )
    return sides[0], sides[1], item_side


def _noise(data: Labelled, label: Tensor, users: _Side, items: _Side) -> Tensor:
    """() the mean squared error of what the rows say, their uncertainty included."""
    total, (every_seen, every_second, _) = torch.zeros(()), moments(items.row, items.covariance)
    for start in range(0, len(label), _BLOCK):
        part = slice(start, start + _BLOCK)
        user, item = (torch.from_numpy(rows[part]) for rows in (data.user, data.item))
        seen, second = every_seen[item], every_second[item]
        row, spread = users.row[user], users.covariance[user]
        said = (row * seen).sum(1) + items.row[item, 0]
        own = row[:, 1:, None] * row[:, None, 1:]
        variance = (second * spread).sum((1, 2)) + items.covariance[item, 0, 0]
        variance += (items.covariance[item, 1:, 1:] * own).sum((1, 2))
        variance += 2 * (items.covariance[item, 0, 1:] * row[:, 1:]).sum(1)
        total += ((label[part] - said).square() + variance).sum()
    return (total / len(label)).clamp(min=_LEAST_NOISE)


def _sparse(row: Rows, column: Rows, value: Tensor, shape: tuple[int, int]) -> Tensor:
    place = torch.stack([torch.from_numpy(row), torch.from_numpy(column)])
    return torch.sparse_coo_tensor(place, value, shape, check_invariants=False).coalesce()


def _by_row(matrix: Tensor) -> Tensor:
    """Sparse, of which products with dense ones are fast."""
    with warnings.catch_warnings():
        # That sparse tensors are in beta.
        warnings.simplefilter("ignore", UserWarning)
        return matrix.coalesce().to_sparse_csr()
