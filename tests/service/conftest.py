"""What every service test may ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.peer import Peer
from services.kernel.service import Definition


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Definition], Peer]]:
    """Start a service; it is closed at the end of the test."""
    peers: list[Peer] = []

    def begin(definition: Definition) -> Peer:
        peers.append(Peer(definition, tmp_path))
        return peers[-1]

    yield begin
    for peer in peers:
        peer.close()
