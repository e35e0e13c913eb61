"""Where a test's server comes from: the environment, a Docker engine, Debian's packages; in this order."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

POSTGRESQL, RABBITMQ, NGINX = "MEDPERF_TEST_POSTGRESQL", "MEDPERF_TEST_RABBITMQ", "MEDPERF_TEST_NGINX"
INSTALL = Path(__file__).resolve().parents[1] / "install_packages.sh"
INSTALL_SECONDS = 280
LOOPBACK = "127.0.0.1"

T = TypeVar("T")
Way = Callable[[], T]


class NotHere(Exception):
    """This way leads to no server; the sentence says why."""


def first(kind: str, variable: str, ways: Sequence[Way[T]]) -> T:
    """What the first way leads to; where none does, the test fails and says what to do. It is never skipped."""
    reasons: list[str] = []
    for way in ways:
        try:
            return way()
        except NotHere as reason:
            reasons.append(f"  - {reason}")
    found_none = "\n".join([f"this test needs {kind}, and found none:", *reasons])
    what_to_do = (
        f"name one by {variable}, start Docker, or run the tests as root on Debian, where it is installed."
    )
    pytest.fail(f"{found_none}\nWhat to do: {what_to_do}", pytrace=False)


def named(variable: str) -> str:
    """What the environment names. Named and not there is no reason to go on to another way: that fails later."""
    if not (value := os.environ.get(variable)):
        raise NotHere(f"{variable} is not set")
    return value


def program(name: str, *, package: str, folders: Sequence[str] = ()) -> Path:
    """A program of Debian's, its package installed where it is missing."""
    if (found := _look_for(name, folders)) is not None:
        return found
    try:
        done = subprocess.run(
            [INSTALL, package], capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise NotHere(f"{package} could not be installed within {INSTALL_SECONDS} s") from None
    if done.returncode != 0:
        raise NotHere(f"{package} is not installed: {done.stderr.strip()[-500:]}")
    if (found := _look_for(name, folders)) is None:
        raise NotHere(f"{package} is installed, and has no program {name}")
    return found


def _look_for(name: str, folders: Sequence[str]) -> Path | None:
    """The newest in the folders, which may be patterns, before the one of PATH."""
    for folder in folders:
        candidates = [path / name for path in Path("/").glob(folder.removeprefix("/")) if (path / name).exists()]
        if candidates:
            return max(candidates, key=lambda path: [int(part) for part in path.parts if part.isdecimal()])
    on_path = shutil.which(name)
    return Path(on_path) if on_path else None
