"""What tests of the client's commands may ask for."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from medperf.credentials import Credentials, Keyring
from medperf.home import Home
from peers import answers
from peers.people import Person, add_account, log_in
from peers.scripted_peer import Reply, Script, ScriptedPeer, by_path
from tutorials.path import EmbeddedServer

NewPerson = Callable[..., Person]
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


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A real embedded server that was not seeded; the module's tests share it, each with people of its own."""
    server = EmbeddedServer(tmp_path_factory.mktemp("embedded") / "store")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def person(
    embedded: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> NewPerson:
    """Somebody new with an account, who is logged in on a machine of their own."""

    def new(role: str, *, is_admin: bool = False) -> Person:
        name = f"{role}-{uuid.uuid4().hex[:8]}"
        add_account(embedded, name, is_admin=is_admin)
        return log_in(Person(name, tmp_path / name, embedded.url, monkeypatch, capsys))

    return new
