"""How often the rows of a table are met.

Example:
    rows = parse_ids("zipf:1.05").draw(1_000_000, 4096)
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flm_torchrec.errors import UserError


@dataclass(frozen=True, slots=True)
class Ids:
    """The k-th most frequent row is met about k^-exponent times as often as the first."""

    exponent: float = 0.0  # 0: all rows alike

    def __str__(self) -> str:
        return f"zipf:{self.exponent:g}" if self.exponent else "uniform"

    def draw(self, rows: int, count: int) -> Tensor:
        """-> (count,) rows; frequent ones lie scattered, as those of hashed ids do."""
        if not self.exponent:
            return torch.randint(rows, (count,))
        drawn = torch.rand(count, dtype=torch.float64)
        if abs(power := 1 - self.exponent) < 1e-9:
            rank = (rows + 1.0) ** drawn
        else:
            rank = (1 + drawn * ((rows + 1.0) ** power - 1)) ** (1 / power)
        return torch.randperm(rows)[(rank.long() - 1).clamp(0, rows - 1)]


def parse_ids(text: str) -> Ids:
    """uniform, or zipf:EXPONENT."""
    kind, _, exponent = text.partition(":")
    try:
        value = 0.0 if text == "uniform" else float(exponent)
    except ValueError:
        value = math.nan
    if text != "uniform" and not (kind == "zipf" and 0 < value < math.inf):
        raise UserError(f"--ids: '{text}'; allowed: uniform, or zipf:EXPONENT as zipf:1.05")
    return Ids(value)
