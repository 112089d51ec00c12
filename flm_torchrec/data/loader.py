"""Batches made ahead of the step that consumes them.

Example:
    for batch in load(lambda step: collator.step(sampler, step), start=0, stop=1000, workers=1):
        ...
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_AHEAD = 2  # batches that a worker has ready or in the making


def load(make: Callable[[int], T], *, start: int, stop: int, workers: int) -> Iterator[T]:
    """What `make` gives for the steps `start` to `stop` - 1, in order.

    `make` is a pure function of the step, so that the number of workers (0: this thread makes
    batches when they are asked for) changes nothing but the time it takes. Workers are threads:
    numpy works on arrays without the interpreter's lock, and nothing has to be copied.
    """
    if workers == 0:
        yield from (make(step) for step in range(start, stop))
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="batches")
    ahead: deque[Future[T]] = deque()
    try:
        for step in range(start, stop):
            ahead.append(pool.submit(make, step))
            if len(ahead) > workers * _AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
