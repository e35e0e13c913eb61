"""Environment variables that are a yes or a no."""

from __future__ import annotations

import os

from medperf.errors import UsageError


def is_set(name: str) -> bool:
    """Whether the variable is 1; UsageError where it is neither 0 nor 1."""
    given = os.environ.get(name, "").strip()
    if given not in ("", "0", "1"):
        raise UsageError(f"{name} is {given!r}, which is neither 0 nor 1.", hint="Set it to 1, or unset it.")
    return given == "1"
