"""A person's machine and a server for it, both real."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tutorials.images import build
from tutorials.path import EmbeddedServer, Site, seeded_server

StartServer = Callable[..., EmbeddedServer]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Start a seeded server with the given `up` options; it is stopped at the end of the test."""
    with ExitStack() as stack:

        def start(*options: str, images: Path | None = None) -> EmbeddedServer:
            return stack.enter_context(seeded_server(tmp_path / "server", *options, images=images))

        yield start


@pytest.fixture(scope="session")
def tutorial_images(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the hashes of the tutorial's images, which are built in the engine that the tests use."""
    file = tmp_path_factory.mktemp("images") / "images.json"
    file.write_text(json.dumps(build(f"sha256:{base_image}", print)))
    return file


@pytest.fixture
def site_of(tmp_path: Path) -> Callable[[EmbeddedServer], Site]:
    """A person's machine that uses a server. What its commands print is shown when the test fails."""
    return lambda server: Site(tmp_path, server.url, print)
