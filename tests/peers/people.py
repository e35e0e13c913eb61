"""People with accounts on a real embedded server, each with a machine of their own."""

from __future__ import annotations

import os
import sysconfig
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import pexpect
import pytest
import yaml

from containers.small import write_cases, write_container
from medperf.api import Gateway
from medperf.cli.main import run
from medperf.home import Home
from medperf.manifest import Role
from medperf_contracts.versions import IDEMPOTENCY_HEADER
from services.embedded.assets import add_asset
from services.embedded.store import Store
from tutorials.path import EmbeddedServer

PASSWORD = "sesame-sesame"


@dataclass
class Person:
    """Somebody who types commands; `said` is what the last one printed on standard error."""

    name: str
    machine: Path
    server_url: str
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    code: int = 0
    said: str = ""

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "MEDPERF_HOME": str(self.machine / "home"),
            "MEDPERF_SERVER": self.server_url,
            "MEDPERF_PLATFORM": "sandbox",
        }

    def try_to(self, *arguments: object) -> str:
        """Type a command without a terminal; what it printed. `code` and `said` hold the rest."""
        for name, value in self.environment.items():
            self.monkeypatch.setenv(name, value)
        self.monkeypatch.chdir(self.machine)
        self.code = run([str(argument) for argument in arguments])
        printed, self.said = self.capsys.readouterr()
        return printed

    def do(self, *arguments: object) -> str:
        """Type a command that must end well; what it printed."""
        printed = self.try_to(*arguments)
        assert self.code == 0, f"{arguments}\n{printed}\n{self.said}"
        return printed

    def at_a_terminal(self, command: str) -> pexpect.spawn[str]:
        """Type a command where questions can be asked."""
        path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, **self.environment, "PATH": path, "COLUMNS": "160"}
        return pexpect.spawn(
            "/bin/sh", ["-c", command], cwd=self.machine, env=environment, encoding="utf-8", timeout=120
        )

    def uid_of(self, printed: str) -> int:
        """The server UID in what a command printed."""
        (line,) = [line for line in printed.splitlines() if line.startswith("Server UID: ")]
        return int(line.removeprefix("Server UID: "))


def add_account(server: EmbeddedServer, name: str, *, is_admin: bool = False) -> None:
    """Make an account as the operator."""
    token = (server.home / "operator.token").read_text()
    headers = {"Authorization": f"Bearer {token}", IDEMPOTENCY_HEADER: str(uuid.uuid4())}
    body = {"username": name, "password": PASSWORD, "is_admin": is_admin}
    # A password is hashed at length, and a machine that runs all tests at once has little to spare.
    answer = httpx.post(f"{server.url}/api/v1/users", json=body, headers=headers, trust_env=False, timeout=60)
    answer.raise_for_status()


def serve_file(server: EmbeddedServer, file: Path) -> str:
    """Give a file out on the server, as `medperf-server asset add` does; its URL."""
    return add_asset(Store(server.home), file).url


def log_in(person: Person) -> Person:
    """Log a person in on their machine."""
    person.machine.mkdir()
    with person.monkeypatch.context() as patched:
        patched.setenv("MEDPERF_HOME", person.environment["MEDPERF_HOME"])
        home = Home.at(person.server_url)
    with Gateway(home) as gateway:
        gateway.login(person.name, PASSWORD)
    return person


def register_container(owner: Person, server: EmbeddedServer, role: Role, *, fault: str = "") -> int:
    """A small container of a person's, in operation, by the commands that they would type; its UID."""
    folder = write_container(owner.machine / f"{role}-{uuid.uuid4().hex[:8]}", role, fault=fault, name=owner.name)
    return register_folder(owner, server, folder)


def register_folder(owner: Person, server: EmbeddedServer, folder: Path) -> int:
    """A container as its owner has it, registered and in operation; its UID."""
    archive = folder.with_suffix(".tar.gz")
    owner.do("container", "pack", folder / "workspace" / "additional_files", "-o", archive)
    url = serve_file(server, archive)
    uid = owner.uid_of(owner.do("container", "submit", folder, "--additional_files", url, "--yes"))
    owner.do("container", "set-operational", uid, "--yes")
    return uid


def serve_demo_data(owner: Person, server: EmbeddedServer) -> str:
    """Demo data for the small containers, given out by the server; its URL."""
    folder = write_cases(owner.machine / f"demo-{uuid.uuid4().hex[:8]}")
    archive = folder.with_suffix(".tar.gz")
    owner.do("container", "pack", folder, "-o", archive)
    return serve_file(server, archive)


def write_benchmark(owner: Person, **said: object) -> Path:
    """A benchmark's file; what is None is left out."""
    file = owner.machine / f"benchmark-{uuid.uuid4().hex[:8]}.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in said.items() if value is not None}))
    return file


@dataclass(frozen=True)
class Parts:
    """The UIDs of a benchmark's containers, and where its demo data is."""

    preparation: int
    reference_model: int
    metrics: int
    demo_data_url: str

    @classmethod
    def of(cls, owner: Person, server: EmbeddedServer) -> Parts:
        """Three small containers and demo data of a person's."""
        return cls(*(register_container(owner, server, role) for role in Role), serve_demo_data(owner, server))


def open_benchmark(owner: Person, administrator: Person, parts: Parts, **said: object) -> int:
    """A benchmark that datasets and models may ask to join; its UID."""
    file = write_benchmark(owner, **{"name": owner.name, **asdict(parts), **said})
    uid = owner.uid_of(owner.do("benchmark", "submit", file, "--yes"))
    owner.do("benchmark", "set-operational", uid, "--yes")
    administrator.do("benchmark", "approve", uid)
    return uid
