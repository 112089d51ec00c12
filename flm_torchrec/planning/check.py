"""One finding of the doctor."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Check:
    """A finding in one line; a FAIL always names the command that repairs it, or what to do."""

    name: str
    status: Literal["ok", "warn", "FAIL"]
    detail: str
    repair: str | None = None
