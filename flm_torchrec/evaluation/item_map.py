"""The items as points on a plane, one map a view, kept in item_map.json beside a run's report."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from flm_torchrec.files import atomic_file

ITEM_MAP = "item_map.json"
MOST_GROUPS = 6  # that have a colour of their own
_LONGEST_TITLE = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemMap:
    """P items on a plane by view."""

    titles: list[str]  # (P,)
    group: list[int | None]  # (P,) the place of an item's group; None: of another group, or of none
    groups: list[str]  # the most frequent first
    grouped_by: str  # the feature that the groups are values of; "" where there is none
    points: dict[str, list[tuple[float, float] | None]]  # by view (P,); None where it lacks a row


def plane(rows: Tensor) -> Tensor:
    """(n, D) -> (n, 2): the rows at unit length on their two first principal components.

    A component points to where its largest loading is positive, so equal rows give equal maps.
    """
    unit = normalize(rows.double())
    centred = unit - unit.mean(0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    points = centred @ (axes * largest.sign()).T
    return torch.cat([points, points.new_zeros(len(points), 2 - points.shape[1])], 1)


def _shortened(title: str) -> str:
    return title if len(title) <= _LONGEST_TITLE else f"{title[: _LONGEST_TITLE - 1].rstrip()}…"


def item_map(
    views: Mapping[str, tuple[Tensor, Tensor]],
    titles: Sequence[str],
    values: Sequence[Sequence[str]],
    *,
    grouped_by: str,
) -> ItemMap:
    """Map P items by view: rows (P, D) and where there is one, (P,) bool. Of an item's `values` of
    the feature `grouped_by` the first that is frequent makes its group."""
    counts = Counter(value for own in values for value in own)
    groups = sorted(counts, key=lambda value: (-counts[value], value))[:MOST_GROUPS]
    number = {value: number for number, value in enumerate(groups)}
    points: dict[str, list[tuple[float, float] | None]] = {}
    for name, (rows, present) in views.items():
        on_plane = torch.zeros(len(rows), 2, dtype=torch.float64)
        on_plane[present] = plane(rows[present])
        points[name] = [
            (round(x, 4), round(y, 4)) if is_there else None
            for (x, y), is_there in zip(on_plane.tolist(), present.tolist(), strict=True)
        ]
    return ItemMap(
        titles=[_shortened(title) for title in titles],
        group=[next((number[value] for value in own if value in number), None) for own in values],
        groups=groups,
        grouped_by=grouped_by,
        points=points,
    )


def write_item_map(file: Path, made: ItemMap) -> None:
    """Write a map for `read_item_map`; only rank 0 should."""
    with atomic_file(file) as temporary:
        temporary.write_text(json.dumps(asdict(made), ensure_ascii=False), encoding="utf-8")


def read_item_map(file: Path) -> ItemMap:
    """The map that was written to `file`."""
    return ItemMap(**json.loads(file.read_text(encoding="utf-8")))
