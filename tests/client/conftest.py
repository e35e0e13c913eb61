"""What tests of the client's commands may ask for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from medperf.credentials import Credentials, Keyring
from medperf.home import Home
from peers import answers
from peers.scripted_peer import Reply, Script, ScriptedPeer, by_path

Serve = Callable[[Mapping[str, Reply | Script]], ScriptedPeer]


@pytest.fixture
def home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of the test's own for the client's files, and for what it makes where it is called."""
    monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MEDPERF_SERVER", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    # Times are shown in the machine's zone.
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    return tmp_path / "home"


@pytest.fixture
def serve(home_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a server that answers these requests beside those about itself, with one person logged in."""
    with ExitStack() as stack:

        def begin(replies: Mapping[str, Reply | Script]) -> ScriptedPeer:
            own = {
                "GET /api/v1/server": Reply.of(answers.SERVER),
                "GET /api/v1/users/me": Reply.of(answers.user(), Medperf_Version="user/5@1"),
            }
            peer = stack.enter_context(ScriptedPeer(by_path({**own, **replies})))
            monkeypatch.setenv("MEDPERF_SERVER", peer.url)
            login = Credentials(5, "ada", "access-1", f"refresh-1-{'x' * 20}", time.time() + 900)
            Keyring(Home.at(peer.url).credentials).keep(login)
            return peer

        yield begin
