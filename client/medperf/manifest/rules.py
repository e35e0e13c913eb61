"""How a manifest is refused: by the key that breaks a rule, and the line it stands on."""

from __future__ import annotations

import re
from typing import NoReturn

from medperf.errors import BadManifest
from medperf.safe_yaml import Lines

HINT = "The container's owner must correct the manifest."
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


class RuleBroken(Exception):
    """A key of the manifest, as `tasks.infer` or `sandbox.packages[2].name`, and what is wrong with it."""

    def __init__(self, key: str, fault: str) -> None:
        super().__init__(f"{key} {fault}")
        self.key = key

    def as_error(self, lines: Lines) -> BadManifest:
        """The error for a person; where the key is missing, with the line of what should hold it."""
        path = tuple(int(place) if place else name for place, name in _STEP.findall(self.key))
        while path and path not in lines:
            path = path[:-1]
        where = f", line {lines[path]}" if path else ""
        return BadManifest(f"In the container's manifest{where}, {self}", hint=HINT)


def refuse(key: str, fault: str) -> NoReturn:
    """Say that `key` breaks a rule."""
    raise RuleBroken(key, fault)
