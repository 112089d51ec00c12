"""The figures of a point, made of seconds (world_size, steps): each with its spread."""

from collections.abc import Mapping, Sequence
from typing import Any

from flm_benchmarks.sharding.timing import PHASES, Spread, imbalance, slowest
from torch import Tensor

STEP = "step"
Figures = dict[str, Any]
Repeats = dict[str, list[float]]


def figures_of(
    whole: Tensor,
    parts: Tensor,
    *,
    samples: int,
    lookups: float,
    useful: float,
    copy: Spread,
    sent: Tensor,
    peaks: Tensor,
) -> tuple[Figures, Repeats]:
    """Of a training step: `whole` (world_size, steps), `parts` (world_size, steps, phases).

    `useful` bytes of tables a step; `sent` (world_size, counted steps) bytes; `peaks`
    (world_size, 1) bytes.
    """
    phases = {name: parts[:, :, place] for place, name in enumerate(PHASES)}
    figures = _rates(whole, samples=samples, lookups=lookups, useful=useful, copy=copy)
    figures |= {
        "passes": "forward, backward, update",
        "phases": {name: times_ms(seconds) for name, seconds in phases.items()},
        # Exchanges make all wait for the slowest: only a rank's own work tells them apart.
        "imbalance": _ratio(phases["forward"]),
        "sent_bytes": [
            {"median": float(row.median()), "least": float(row.min()), "most": float(row.max())}
            for row in sent
        ],
        "peak_memory_bytes": [int(peak) for peak in peaks[:, 0].tolist()],
    }
    return figures, {
        STEP: rounded(slowest(whole)),
        **{name: rounded(slowest(seconds)) for name, seconds in phases.items()},
    }


def forward_figures(
    whole: Tensor, *, samples: int, lookups: float, useful: float, copy: Spread, peaks: Tensor
) -> tuple[Figures, Repeats]:
    """Of a forward pass without any exchange: `whole` (world_size, steps)."""
    figures = _rates(whole, samples=samples, lookups=lookups, useful=useful, copy=copy)
    figures |= {
        "passes": "forward only",
        "phases": {"forward": times_ms(whole)},
        "imbalance": _ratio(whole),
        "sent_bytes": [{"median": 0.0, "least": 0.0, "most": 0.0} for _ in peaks],
        "peak_memory_bytes": [int(peak) for peak in peaks[:, 0].tolist()],
    }
    return figures, {STEP: rounded(slowest(whole)), "forward": rounded(slowest(whole))}


def _rates(whole: Tensor, *, samples: int, lookups: float, useful: float, copy: Spread) -> Figures:
    seconds = Spread.of(slowest(whole))
    table_speed = rate(useful, seconds)
    return {
        STEP: times_ms(whole),
        "samples_per_s": rate(samples, seconds),
        "lookups_per_s": rate(lookups, seconds),
        "table_bytes": useful,
        "table_bytes_per_s": table_speed,
        "copy_bytes_per_s": {"median": copy.median, "p10": copy.p10, "p90": copy.p90},
        "share_of_copy": {name: value / copy.median for name, value in table_speed.items()},
    }


def _ratio(seconds: Tensor) -> dict[str, float]:
    spread = imbalance(seconds)
    return {"median": spread.median, "p10": spread.p10, "p90": spread.p90}


def times_ms(seconds: Tensor) -> dict[str, float]:
    """(world_size, steps) -> milliseconds of the slowest rank."""
    spread = Spread.of(slowest(seconds))
    return {
        "median_ms": 1e3 * spread.median,
        "p10_ms": 1e3 * spread.p10,
        "p90_ms": 1e3 * spread.p90,
        "p99_ms": 1e3 * spread.p99,
    }


def rate(amount: float, seconds: Spread) -> Mapping[str, float]:
    """An amount a step as one a second; p10 is that of a slow step."""
    return {
        "median": amount / seconds.median,
        "p10": amount / seconds.p90,
        "p90": amount / seconds.p10,
    }


def rounded(seconds: Tensor | Sequence[float]) -> list[float]:
    """Seconds to a tenth of a microsecond."""
    values = seconds.tolist() if isinstance(seconds, Tensor) else seconds
    return [round(value, 7) for value in values]
