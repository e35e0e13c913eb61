"""The small federation and a person's machine on it, one for each file of tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.clients import Launcher, Terminal, launcher
from faults.federation import small_server
from faults.stages import Stages
from tutorials.path import EmbeddedServer


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A running server with small containers."""
    with small_server(tmp_path_factory.mktemp("small")) as server:
        yield server


@pytest.fixture(scope="module")
def commands() -> Iterator[Launcher]:
    """What runs the commands."""
    with launcher() as begun:
        yield begun


@pytest.fixture(scope="module")
def stages(small: EmbeddedServer, commands: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """A machine at each step of the path."""
    return Stages.walked(small, Terminal(commands, tmp_path_factory.mktemp("stages") / "site", small.url))


@pytest.fixture
def machine_at(stages: Stages, tmp_path: Path) -> Callable[[str], Terminal]:
    """A machine of its own, as it is before the named step; each call gives another."""
    numbers = iter(range(10_000))
    return lambda step: stages.at(step, tmp_path / f"{step.replace(' ', '-')}-{next(numbers)}")
