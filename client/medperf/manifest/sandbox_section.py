"""The `sandbox` section of a manifest: how a container's own code runs where there is no engine."""

from __future__ import annotations

import re
from typing import Any

from medperf.manifest.model import Package, Sandbox
from medperf.manifest.rules import mapping, refuse, text

MAX_PACKAGES = 200
_PACKAGE = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)==(?P<version>[A-Za-z0-9.+!]{1,60})"
)
_HASH = re.compile(r"sha256:(?P<hex>[0-9a-f]{64})")


def read_sandbox(value: Any) -> Sandbox:
    """The `sandbox` section of a manifest; RuleBroken names the key that breaks a rule."""
    body = mapping(value, "sandbox")
    unknown = sorted(body.keys() - {"command", "packages"})
    if unknown:
        refuse(f"sandbox.{unknown[0]}", "is unknown; a sandbox has a command and packages")
    command = body.get("command")
    if not isinstance(command, list) or not command:
        refuse("sandbox.command", "must be a list of words, the program first")
    words = tuple(text(word, f"sandbox.command[{place}]") for place, word in enumerate(command))
    written = body.get("packages") or []
    if not isinstance(written, list) or len(written) > MAX_PACKAGES:
        refuse("sandbox.packages", f"must be a list of at most {MAX_PACKAGES} packages")
    packages = tuple(_package(entry, f"sandbox.packages[{place}]") for place, entry in enumerate(written))
    names = [re.sub(r"[-_.]+", "-", package.name).lower() for package in packages]
    for place, name in enumerate(names):
        if name in names[:place]:
            refuse(f"sandbox.packages[{place}].name", f"{name} is there twice")
    return Sandbox(words, packages)


def _package(value: Any, key: str) -> Package:
    body = mapping(value, key)
    unknown = sorted(body.keys() - {"name", "hashes"})
    if unknown:
        refuse(f"{key}.{unknown[0]}", "is unknown; a package has a name and hashes, no options and no URL")
    found = _PACKAGE.fullmatch(text(body.get("name"), f"{key}.name"))
    if not found:
        refuse(f"{key}.name", f"({body['name']!r:.80}) must be NAME==VERSION: no URL, no option, no range")
    hashes = body.get("hashes")
    if not isinstance(hashes, list) or not 0 < len(hashes) <= 200:
        refuse(f"{key}.hashes", "must list at least one sha256:… of the package's wheels")
    digests = []
    for place, written in enumerate(hashes):
        digest = _HASH.fullmatch(written) if isinstance(written, str) else None
        if not digest:
            refuse(f"{key}.hashes[{place}]", "must be sha256: and 64 hexadecimal digits")
        digests.append(digest["hex"])
    return Package(found["name"], found["version"], tuple(digests))
