"""A synthetic click log of context alone, like Criteo's: 26 categorical columns, 13 numeric."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flm_torchrec.data.schema import Feature, Features, InteractionSchema, Label, Schema
from flm_torchrec.data.sources.folder import NewFolder
from flm_torchrec.data.sources.planted import (
    BestAUC,
    Effects,
    Floats,
    Outcome,
    in_test,
    sigmoid,
    zipf,
)

NUMERIC = [f"I{place}" for place in range(1, 14)]
CATEGORICAL = [f"C{place}" for place in range(1, 27)]
_ROWS = 200_000  # of a block
_RATE, _BEST_AUC = 0.25, 0.80
_HIDDEN = 4  # width of the hidden vectors
_PAIRS = 30  # of columns that interact
_SMALLEST, _LARGEST = 4, 100_000  # values of a categorical column
_MISSING = 0.05  # of the numbers in every third column
# (13, 1) of the logarithms of the numbers: from a few, most of them 0, to hundreds of thousands.
_MIDDLES = 0.3 * np.arange(len(NUMERIC), dtype=np.float32)[:, None]
_SPREADS = 0.8 + _MIDDLES / 3
_SHARES = {"main": 0.45, "pairs": 0.3, "numeric": 0.25}  # of the variance of the score


def criteo_schema(context: Features) -> Schema:
    """The schema of a click log that knows neither users nor items."""
    return Schema(
        interactions=InteractionSchema(
            context=context,
            labels={"click": Label(kind="binary")},
            history="none",
            order="by_log",
        )
    )


SCHEMA = criteo_schema(
    {
        **{name: Feature(kind="numeric") for name in NUMERIC},
        **{name: Feature(kind="categorical") for name in CATEGORICAL},
    }
)


@dataclass(frozen=True, slots=True)
class _Rows:
    """A block of the log."""

    codes: NDArray[np.int64]  # (26, n)
    numbers: Floats  # (13, n) whole; nan = missing


class _World:
    """The hidden parameters that clicks are drawn by."""

    def __init__(self, rng: np.random.Generator) -> None:
        sizes = np.geomspace(_SMALLEST, _LARGEST, len(CATEGORICAL)).astype(int)
        self.sizes = rng.permutation(sizes).tolist()
        self.powers = rng.uniform(1.05, 1.3, len(CATEGORICAL))
        self.main = [rng.standard_normal(size, np.float32) for size in self.sizes]
        self.hidden = [rng.standard_normal((size, _HIDDEN), np.float32) for size in self.sizes]
        pairs = np.array(np.triu_indices(len(CATEGORICAL), 1)).T
        self.pairs = rng.permutation(pairs)[:_PAIRS]
        self.bends = rng.standard_normal((len(NUMERIC), 3)).astype(np.float32)
        sample = self.effects(self.draw(rng, _ROWS))
        self.click = Outcome(_SHARES, sample, rate=_RATE, best_auc=_BEST_AUC)

    def draw(self, rng: np.random.Generator, count: int) -> _Rows:
        """`count` rows."""
        columns = zip(self.sizes, self.powers, strict=True)
        codes = np.stack([zipf(rng, size, count, power) for size, power in columns])
        drawn = rng.standard_normal((len(NUMERIC), count), np.float32)
        numbers = np.floor(np.exp(drawn * _SPREADS + _MIDDLES))
        is_missing = rng.random((len(NUMERIC), count), np.float32) < _MISSING
        is_missing[np.arange(len(NUMERIC)) % 3 != 0] = False
        numbers[is_missing] = np.nan
        return _Rows(codes, numbers)

    def effects(self, rows: _Rows) -> Effects:
        """What each kind of cause adds to the score, before it is scaled."""
        vectors = [hidden[codes] for hidden, codes in zip(self.hidden, rows.codes, strict=True)]
        x = np.nan_to_num((np.log1p(rows.numbers) - _MIDDLES) / _SPREADS)
        line, wave, hump = self.bends.T[:, :, None]
        return {
            "main": sum(
                (main[codes] for main, codes in zip(self.main, rows.codes, strict=True)),
                start=np.zeros(len(rows.codes[0]), dtype=np.float32),
            ),
            "pairs": sum(
                (np.einsum("nd,nd->n", vectors[a], vectors[b]) for a, b in self.pairs),
                start=np.zeros(len(rows.codes[0]), dtype=np.float32),
            ),
            "numeric": (line * x + wave * np.sin(2 * x) + hump * np.exp(-(x**2))).sum(axis=0),
        }


def _table(rows: _Rows, click: NDArray[np.bool_]) -> pa.Table:
    columns: dict[str, pa.Array] = {"click": pa.array(click.astype(np.int8))}
    for name, values in zip(NUMERIC, rows.numbers, strict=True):
        columns[name] = pa.array(np.nan_to_num(values).astype(np.int32), mask=np.isnan(values))
    columns |= {
        name: pa.array(c, pa.int32()) for name, c in zip(CATEGORICAL, rows.codes, strict=True)
    }
    return pa.table(columns)


def write_context(folder: NewFolder, *, interactions: int, seed: int) -> dict[str, Any]:
    """Fill `folder`; -> what is true of it."""
    rng = np.random.default_rng(seed)
    world = _World(rng)
    best = BestAUC()
    for first in range(0, interactions, _ROWS):
        rows = world.draw(rng, min(_ROWS, interactions - first))
        p = sigmoid(world.click.logits(world.effects(rows)))
        click = rng.random(len(p), np.float32) < p
        best.add(p, click, in_test(first, len(p), interactions))
        folder.add("interactions", _table(rows, click))
    folder.write_schema(SCHEMA)
    return {
        "best_auc": {"click": best.result()},
        "shares_of_variance": _SHARES,
        "values": dict(zip(CATEGORICAL, world.sizes, strict=True)),
        "pairs": [f"{CATEGORICAL[a]} {CATEGORICAL[b]}" for a, b in world.pairs.tolist()],
    }
