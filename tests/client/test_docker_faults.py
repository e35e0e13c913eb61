"""A Docker that does not answer, answers with an error, or is looked for where it is not: bounded, with advice."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path, PurePosixPath
from socketserver import ThreadingMixIn, UnixStreamServer

import pytest

from containers.attack import AS_ROOT
from containers.small import sandbox_only
from medperf.engines.base import CannotStart, EngineSilent
from medperf.engines.docker import DockerEngine
from medperf.engines.docker_connection import FIRST_ANSWER_SECONDS
from medperf.engines.docker_images import declared_volumes
from medperf.errors import EngineUnavailable
from medperf.home import Home
from medperf.journal import Journal, RunState
from medperf.left_over import end_left_over
from peers.runs import open_run


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """Docker's address is a socket on which connections are taken, and nothing is said; the connections."""
    taken: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "silent.sock"))
        listener.listen()

        def take() -> None:
            with suppress(OSError):
                while True:
                    taken.append(listener.accept()[0])

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'silent.sock'}")
        yield taken
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    for one in taken:
        one.close()


def test_an_engine_that_says_nothing_is_asked_once_with_a_bound(
    tmp_path: Path, silent: list[socket.socket]
) -> None:
    began = time.monotonic()
    with closing(DockerEngine(tmp_path)) as engine:
        with pytest.raises(EngineSilent, match="does not answer") as raised:
            engine.check()
        connections = len(silent)
        for ask in (engine.check, engine.left_over, lambda: engine.discard("run"), lambda: engine.find("run")):
            with pytest.raises(EngineSilent):
                ask()
    assert time.monotonic() - began < 2 * FIRST_ANSWER_SECONDS
    assert len(silent) == connections
    assert "DOCKER_HOST is set to unix://" in raised.value.hint


def test_a_silent_engine_is_said_where_something_of_earlier_commands_may_be_in_it(
    tmp_path: Path, silent: list[socket.socket]
) -> None:
    home = Home("http://localhost:8000", tmp_path / "home")
    journal = Journal(home.journal)
    run = open_run(journal)
    journal.ended(run.id, RunState.DONE, cause=None, exit_code=0)
    said: list[str] = []
    with closing(sandbox_only(home)) as engines:
        end_left_over(home, journal, engines, say=said.append)
    assert silent == []
    assert said == []
    docker = open_run(journal, engine="docker")
    journal.ended(docker.id, RunState.DONE, cause=None, exit_code=0)
    with closing(sandbox_only(home)) as engines:
        end_left_over(home, journal, engines, say=said.append)
    assert ["does not answer" in line for line in said] == [True]


def test_who_wants_the_sandbox_waits_for_no_answer_about_an_image(
    tmp_path: Path, silent: list[socket.socket]
) -> None:
    with closing(sandbox_only(Home("http://localhost:8000", tmp_path / "home"))) as engines:
        assert engines.image_here("some/image:1") is None
    assert silent == []


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("tcp://[::1", "no engine's address"),
        ("gibberish", "no engine's address"),
        ("ssh://somebody@elsewhere", "no engine's address"),
        ("tcp://127.0.0.1:1", "No Docker engine answers at tcp://127.0.0.1:1"),
        ("unix:///nowhere/docker.sock", "No such file"),
    ],
)
def test_an_address_that_leads_nowhere_is_said_with_the_variable_that_it_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, said: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    with closing(DockerEngine(tmp_path)) as engine, pytest.raises(EngineUnavailable, match=said) as raised:
        engine.check()
    assert "DOCKER_HOST" in f"{raised.value} {raised.value.hint}"
    assert "nset" in raised.value.hint


@pytest.mark.skipif(not AS_ROOT, reason="only root can look as another user into a folder that is not theirs")
def test_a_socket_in_a_folder_that_only_another_may_enter_is_not_there(library: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    code = (
        "from dataclasses import replace; from medperf.engines.docker_connection import podman;"
        f"print(replace(podman(), sockets=('/nowhere/podman.sock', '{tmp_path}/podman.sock')).usual_address)"
    )
    command = ["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", code]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(library)}, cwd="/", capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("unix:///nowhere/podman.sock\n", "")


class Declaring:
    """An image as the SDK shows it."""

    def __init__(self, *volumes: str) -> None:
        self.attrs = {"Config": {"Volumes": {path: {} for path in volumes}}}


@pytest.mark.parametrize("volume", ["/", "//", "/a/..", "weights", "./weights", ""])
def test_a_volume_that_is_no_folder_of_the_image_is_its_owners_to_correct(volume: str) -> None:
    with pytest.raises(CannotStart, match="no folder inside it") as raised:
        declared_volumes(Declaring("/fine", volume))  # type: ignore[arg-type]
    assert "owner" in raised.value.hint


def test_a_volume_has_one_name_however_it_is_written() -> None:
    found = declared_volumes(Declaring("/weights/", "/a/../weights", "//weights", "/b"))  # type: ignore[arg-type]
    assert found == (PurePosixPath("/weights"), PurePosixPath("/b"))


class Refusing(BaseHTTPRequestHandler):
    """A daemon that answers, and refuses whatever is asked of its work."""

    status, message = 400, ""

    def do_GET(self) -> None:
        body = {"ApiVersion": "1.41", "Version": "20.10"} if self.path.endswith("/version") else None
        self._answer(200 if body else self.status, body or {"message": self.message})

    def _answer(self, status: int, body: dict[str, str]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def address_string(self) -> str:
        return "a client"

    def log_message(self, *_: object) -> None:
        pass


class Daemon(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


@pytest.mark.parametrize(
    ("status", "message", "advice"),
    [
        (400, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", "--cpus"),
        (400, "Minimum memory limit allowed is 6MB", "--memory_limit"),
        (400, 'invalid mount config for type "bind": bind source path does not exist: /x', "see the local folder"),
        (400, "invalid volume specification: 'weights'", "tell its owner"),
        (404, "No such container: abc", "Run the same command again"),
        (409, "Conflict", "Docker itself answers"),
        (500, "no space left on device", "its log"),
    ],
)
def test_what_a_daemon_refuses_gets_the_advice_that_fits_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, message: str, advice: str
) -> None:
    handler = type("Handler", (Refusing,), {"status": status, "message": message})
    path = tmp_path / "refusing.sock"
    with Daemon(str(path), handler) as server, closing(DockerEngine(tmp_path)) as engine:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        with pytest.raises(EngineUnavailable) as raised:
            engine.left_over()
        server.shutdown()
        thread.join()
    assert message in str(raised.value)
    assert advice in raised.value.hint
    assert "systemctl start" not in raised.value.hint
