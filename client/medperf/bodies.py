"""From what a person typed to what is sent: the bounds of the API, as errors that a person can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .errors import UsageError


def in_words(problem: ErrorDetails) -> str:
    """What is wrong with one field, in the words of whoever set the bound."""
    return problem["msg"].removeprefix("Value error, ")


@contextmanager
def checked_input() -> Iterator[None]:
    """Make a body out of what was typed inside; UsageError naming each field that is out of its bounds."""
    try:
        yield
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(step) for step in problem['loc']) or 'the request'}: {in_words(problem)}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise UsageError(
            f"What you gave is not accepted: {wrong}.", hint="Change what is named, then run the command again."
        ) from error
