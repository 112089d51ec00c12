"""Preparing on the machines of an engine that is there already, past one machine's strength.

Example:
    prepare("/shared/clicks", mapper=dask_mapper("tcp://scheduler:8786"))
"""

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any

from flm_torchrec.data.preparing.stage_log import Mapper
from flm_torchrec.errors import UserError

_PATIENCE = "10s"


def dask_mapper(address: str) -> Mapper:
    """A `mapper` of `prepare` that works on a Dask cluster, whose scheduler is at `address`.

    Its workers have this package, and reach the data folder under the same path.
    """
    try:
        distributed: Any = import_module("dask.distributed")
    except ImportError as error:
        raise UserError(f"dask is not installed ({error}); pip install distributed") from error

    def mapper(function: Callable[[Any], Any], pieces: Iterable[Any]) -> Iterator[Any]:
        try:
            client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UserError(f"dask: no scheduler answers at '{address}': {error}") from error
        with client:
            for future in client.map(function, list(pieces), pure=False):
                yield future.result()

    return mapper
