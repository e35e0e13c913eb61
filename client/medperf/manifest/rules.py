"""How a manifest is refused: by the key that breaks a rule, and the line it stands on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

from medperf.errors import BadManifest
from medperf.manifest.model import ALL_GPUS, Gpus
from medperf.safe_yaml import Lines

MAX_TASKS = 50
MAX_PARAMETERS = 50
MAX_GPUS = 64
HINT = "The container's owner must correct the manifest."
# What a name may be that becomes part of a command line and of a path.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
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


def mapping(value: Any, key: str) -> Mapping[str, Any]:
    """A mapping that must be there."""
    if not isinstance(value, dict):
        refuse(key, "is missing" if value is None else "must be a mapping")
    return value


def text(value: Any, key: str, *, limit: int = 500) -> str:
    """Text that must be there, of `limit` characters at most."""
    if not isinstance(value, str) or not value.strip():
        refuse(key, "must be text")
    if len(value) > limit:
        refuse(key, f"is longer than {limit} characters")
    if any(ord(character) < 32 and character not in "\n\t" for character in value):
        refuse(key, "holds control characters")
    return value


def gpu_count(value: Any, key: str) -> Gpus:
    """How many GPUs are asked for, as `docker run --gpus` takes it: all, a count, or a list of devices.

    Devices are of the machine on which they were written down, so that only their number counts.
    """
    words = str(value).strip("\"' ").split(",")
    # A word without a name is one more of what stands before it; at the beginning it is a count.
    named: dict[str, list[str]] = {}
    name = "count"
    for word in words:
        before, has_name, rest = word.partition("=")
        name = before if has_name else name
        named.setdefault(name, []).append(rest if has_name else word)
    counts = [str(len(named["device"]))] if "device" in named else named.get("count", [])
    if counts == ["all"]:
        return ALL_GPUS
    count = counts[0] if len(counts) == 1 else ""
    if isinstance(value, bool) or not (count.isascii() and count.isdecimal()) or int(count) > MAX_GPUS:
        refuse(key, f"must be all, or a count of 0 to {MAX_GPUS}")
    return int(count)


def check_name(name: str, key: str) -> None:
    """The name of a task or a parameter."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        refuse(key, "is not a name: letters, digits and _ only")
