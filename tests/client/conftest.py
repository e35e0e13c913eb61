"""What tests of the client's commands may ask for."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from containers import attack
from containers.attack import AS_ROOT, CALLERS, Client
from medperf.credentials import Credentials, Keyring
from medperf.home import Home
from peers import answers
from peers.people import Person, add_account, log_in
from peers.scripted_peer import Reply, Script, ScriptedPeer, by_path
from tutorials.path import EmbeddedServer

NewPerson = Callable[..., Person]
# How memory and processes are bounded: in the sandbox and Apptainer by a cgroup where root can make one, else by
# rlimits and the watcher; in Docker always by a cgroup.
BOUNDS = [
    (engine, caller, cgroups)
    for engine in ("sandbox", "apptainer")
    for caller, cgroups in (("root", True), ("root", False), ("user", False))
]
BOUNDS += [
    (engine, caller, True) for engine, caller in (*(("docker", caller) for caller in CALLERS), ("podman", "root"))
]
# A rootless Podman bounds them by a cgroup where it is given one, which none of the tests' machines does.
BOUNDS += [("podman", "rootless", False)] * AS_ROOT
ENGINES = [
    *((engine, caller) for engine in ("sandbox", "docker", "apptainer") for caller in CALLERS),
    ("podman", "root"),
    *[("podman", "rootless")] * AS_ROOT,
]

BASE_IMAGES = {"docker": "base_image", "podman": "podman_base_image", "rootless": "rootless_base_image"}

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


@pytest.fixture(scope="session")
def library() -> Iterator[Path]:
    """The client and what it imports, where a plain user can read it."""
    with attack.library() as folder:
        yield folder


@pytest.fixture(params=ENGINES, ids="-".join)
def client(request: pytest.FixtureRequest, library: Path) -> Iterator[Client]:
    """A client that runs containers: each engine, as root and as a plain user."""
    engine, caller = request.param
    with _made(request, engine, caller, library) as made:
        yield made


@pytest.fixture(params=["sandbox", "docker", "podman", "apptainer"])
def one_client(request: pytest.FixtureRequest, library: Path) -> Iterator[Client]:
    """Each engine, for what does not depend on who calls."""
    with _made(request, request.param, CALLERS[0], library) as made:
        yield made


@pytest.fixture(
    params=[bound for bound in BOUNDS if bound[1] in (*CALLERS, "rootless")],
    ids=lambda bound: f"{bound[0]}-{bound[1]}-{'cgroup' if bound[2] else 'watcher'}",
)
def bounded_client(request: pytest.FixtureRequest, library: Path) -> Iterator[Client]:
    """Each way in which memory and processes are bounded."""
    engine, caller, cgroups = request.param
    with _made(request, engine, caller, library, cgroups=cgroups) as made:
        yield made


def _made(
    request: pytest.FixtureRequest, engine: str, caller: str, library: Path, *, cgroups: bool = True
) -> AbstractContextManager[Client]:
    of = BASE_IMAGES.get("rootless" if caller == "rootless" else engine)
    image = request.getfixturevalue(of) if of is not None else ""
    sif = request.getfixturevalue("base_sif") if engine == "apptainer" else ""
    return attack.make_client(engine, caller, library, cgroups=cgroups, image_sha256=image, sif=str(sif))
