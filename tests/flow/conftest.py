"""A person's machine and a server for it, both real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tutorials.path import EmbeddedServer, Site, seeded_server

StartServer = Callable[..., EmbeddedServer]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Start a seeded server with the given `up` options; it is stopped at the end of the test."""
    with ExitStack() as stack:
        yield lambda *options: stack.enter_context(seeded_server(tmp_path / "server", *options))


@pytest.fixture
def site_of(tmp_path: Path) -> Callable[[EmbeddedServer], Site]:
    """A person's machine that uses a server. What its commands print is shown when the test fails."""
    return lambda server: Site(tmp_path, server.url, print)
