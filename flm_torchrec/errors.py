"""What a user did wrong, told in one line instead of a traceback."""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


class UserError(ValueError):
    """A mistake in what the user gave: the message names place, value and what is allowed."""


def app(main: Callable[P, int]) -> Callable[P, int]:
    """Turn a `UserError` of an app's `main` into one line on stderr and exit code 2."""

    @functools.wraps(main)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f"flm: error: {error}", file=sys.stderr)
            return 2

    return guarded
