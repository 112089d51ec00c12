"""What a user did wrong, told in one line instead of a traceback."""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


class UserError(ValueError):
    """A mistake in what the user gave: the message names place, value and what is allowed."""


def app(main: Callable[P, int]) -> Callable[P, int]:
    """Turn a `UserError` of an app's `main`, and what the operating system refuses about a file,
    into one line on stderr and exit code 2."""

    @functools.wraps(main)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            told = str(error)
        except OSError as error:
            if error.filename is None:
                raise
            told = f"{error.filename}: {error.strerror}"
        print(f"flm: error: {told}", file=sys.stderr)
        return 2

    return guarded
