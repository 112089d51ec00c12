"""The cluster that a plan is for; it need not exist here.

Example:
    cluster = Cluster(world_size=64, local_world_size=8, device="cuda", hbm=parse_bytes("80GB"))
"""

import re
from dataclasses import dataclass
from typing import Literal

from flm_torchrec.errors import UserError

Device = Literal["cuda", "cpu"]
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(i?)B", re.IGNORECASE)
_PREFIXES = ("", "K", "M", "G", "T", "P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Ranks, their memory and what joins them; None leaves TorchRec's own figure."""

    world_size: int
    local_world_size: int  # ranks a host
    device: Device = "cuda"
    hbm: int | None = None  # bytes a rank
    host_memory: int | None = None  # bytes a host, shared by its ranks
    intra_bandwidth: float | None = None  # bytes/s a rank within a host
    inter_bandwidth: float | None = None  # bytes/s a rank between hosts

    def __post_init__(self) -> None:
        for name in ("world_size", "local_world_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{_option(name)}: {getattr(self, name)}; allowed: 1 or more")
        if self.world_size % self.local_world_size:
            raise UserError(
                f"--world-size: {self.world_size} ranks are no whole number of hosts of "
                f"{self.local_world_size}; allowed: multiples of --local-world-size"
            )
        if self.device == "cpu" and self.hbm is not None:
            raise UserError("--hbm: a cpu has none; allowed: --host-memory, or --device cuda")
        for name in ("hbm", "host_memory", "intra_bandwidth", "inter_bandwidth"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"{_option(name)}: {value}; allowed: more than 0")

    @property
    def num_hosts(self) -> int:
        """Machines."""
        return self.world_size // self.local_world_size

    @property
    def rank_host_memory(self) -> int | None:
        """Bytes of a host's memory for one of its ranks."""
        return None if self.host_memory is None else self.host_memory // self.local_world_size


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def parse_bytes(text: str, option: str = "size") -> int:
    """Bytes of a size such as 80GB (10^9) or 80GiB (2^30)."""
    found = _BYTES.fullmatch(text.strip())
    if found is None or (size := _scaled(found)) < 1:
        raise UserError(f"{option}: '{text}' is no size; allowed: a number with B, as 80GB or 1TiB")
    return size


def parse_bandwidth(text: str, option: str = "bandwidth") -> float:
    """Bytes a second of a bandwidth such as 600GB/s; networks in bits as 200Gb/s are refused."""
    amount, slash, second = text.strip().rpartition("/")
    found = _BYTES.fullmatch(amount)
    is_bits = found is not None and amount.rstrip()[-1] == "b"
    if not slash or second.lower() != "s" or found is None or is_bits or _scaled(found) < 1:
        raise UserError(
            f"{option}: '{text}' is no bandwidth; allowed: bytes a second, as 600GB/s or 25GiB/s "
            "(200 gigabits a second are 25GB/s)"
        )
    return float(_scaled(found))


def _scaled(found: re.Match[str]) -> int:
    amount, prefix, binary = found.groups()
    base = 1024 if binary else 1000
    return int(float(amount) * base ** _PREFIXES.index(prefix.upper()))


def parse_sizes(text: str, option: str = "--world-size") -> tuple[int, ...]:
    """Whole numbers, rising, of a list such as 8,64,512."""
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise UserError(f"{option}: '{text}'; allowed: whole numbers, as 8 or 8,64,512") from None
    if sizes[0] < 1:
        raise UserError(f"{option}: {sizes[0]}; allowed: 1 or more")
    return tuple(sizes)


def shown_bytes(size: float) -> str:
    """A size as people write it: 80.0 GB."""
    for prefix in reversed(_PREFIXES):
        unit = 1000 ** _PREFIXES.index(prefix)
        if abs(size) >= unit:
            return f"{size / unit:.1f} {prefix}B" if prefix else f"{size:.0f} B"
    return f"{size:.0f} B"
