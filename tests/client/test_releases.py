"""Client and server say their releases to each other; one that is too old is told what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.conftest import Serve
from medperf.cli.main import main
from medperf.errors import VersionMismatch
from medperf_contracts import releases
from medperf_contracts.releases import CLIENT, is_older, release_in
from peers import answers
from peers.people import Person, add_account
from peers.scripted_peer import Reply, ScriptedPeer
from service.served import Server, servers


@pytest.mark.parametrize(
    ("release", "oldest", "says"),
    [("0.1.0", "0.1.0", False), ("0.0.9", "0.1.0", True), ("0.9.0", "0.10.0", True), ("1.0.0", "0.10.0", False)],
)
def test_releases_are_compared_by_number(release: str, oldest: str, says: bool) -> None:
    assert is_older(release, oldest) is says


@pytest.mark.parametrize("said", [None, "", "medperf", "medperf/1", "medperf/1.2.x", "curl/8.0.0", "medperf/1.2.3 "])
def test_what_names_no_release_of_ours_is_none(said: str | None) -> None:
    assert release_in(said, "medperf") is None
