"""`docker-compose.yml` brought up for real, from a copy of the repository that has no secrets and no data yet."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from servers.life import free_port

ROOT = Path(__file__).resolve().parents[2]
BUILD_SECONDS, UP_SECONDS, COMMAND_SECONDS, HEALTHY_SECONDS = 1800, 900, 300, 300
_LABEL = "com.docker.compose.project"


def compose_program() -> list[str]:
    """`docker compose`, or `docker-compose`, which is installed where neither is there."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose") is None:
        subprocess.run([ROOT / "tests" / "install_packages.sh", "docker-compose"], check=True)
    return ["docker-compose"]


def run(words: Sequence[str | Path], *, seconds: float = COMMAND_SECONDS, **options: Any) -> str:
    """A program's standard output; the test fails with all that it said where it ends badly."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False, **options)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, words))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


@dataclass(frozen=True)
class Container:
    """A container of the project, as the engine describes it."""

    described: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.described["Id"])

    @property
    def service(self) -> str:
        return str(self.described["Config"]["Labels"]["com.docker.compose.service"])

    @property
    def pid(self) -> int:
        return int(self.described["State"]["Pid"])

    @property
    def restarts(self) -> int:
        return int(self.described["RestartCount"])

    @property
    def is_well(self) -> bool:
        """Healthy, or, where it does one thing, done with it."""
        state = self.described["State"]
        if self.service in ("provision", "migrate"):
            return state["Status"] == "exited" and state["ExitCode"] == 0
        return state["Status"] == "running" and state["Health"]["Status"] == "healthy"

    @property
    def addresses(self) -> dict[str, str]:
        """By network of the project."""
        project = self.described["Config"]["Labels"][_LABEL]
        networks = self.described["NetworkSettings"]["Networks"]
        return {name.removeprefix(f"{project}_"): network["IPAddress"] for name, network in networks.items()}

    @property
    def published(self) -> list[str]:
        """Where ports of it are reached from outside the engine's networks, as `address:port`."""
        ports = self.described["NetworkSettings"]["Ports"] or {}
        return [f"{at['HostIp']}:{at['HostPort']}" for bound in ports.values() for at in bound or ()]

    def inside(self, *words: str) -> str:
        """What a command in it prints."""
        return run(["docker", "exec", self.id, *words])


@dataclass
class Project:
    """One deployment by Compose."""

    folder: Path
    images: Mapping[str, str]
    port: int = field(default_factory=free_port)
    name: str = field(default_factory=lambda: f"medperf-test-{os.getpid()}")

    def __post_init__(self) -> None:
        listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT)
        for name in filter(None, listed.split("\0")):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, self.folder / name)

    @cached_property
    def _program(self) -> list[str]:
        return compose_program()

    @property
    def url(self) -> str:
        """Of the gateway."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def _environment(self) -> dict[str, str]:
        address = f"127.0.0.1:{self.port}"
        return {**os.environ, **self.images, "MEDPERF_ADDRESS": address, "COMPOSE_PROJECT_NAME": self.name}

    def compose(self, *words: str, seconds: float = COMMAND_SECONDS, given: str | None = None) -> str:
        """What a command of Compose prints."""
        return run([*self._program, *words], seconds=seconds, cwd=self.folder, env=self._environment, input=given)

    def type(self, recipe: str) -> str:
        """What the commands of a guide's recipe print at a terminal; the first that ends badly is the last."""
        text = recipe.replace("docker compose", " ".join(self._program)).replace("PROJECT", self.name)
        (self.folder / "recipe.sh").write_text(f"set -e -o pipefail\n{text}")
        typed = ["script", "--quiet", "--return", "--command", "bash recipe.sh", "/dev/null"]
        return run(typed, seconds=UP_SECONDS, cwd=self.folder, env=self._environment, stdin=subprocess.DEVNULL)

    def make_secrets(self) -> None:
        self.compose("-f", "docker-compose.secrets.yml", "run", "--rm", "-T", "secrets")

    def up(self) -> None:
        """As the README says."""
        self.compose("up", "-d", seconds=UP_SECONDS)

    def command(self, *words: str, given: str | None = None) -> str:
        """What an operator's command prints, in a container of its own; files that it names are given to it."""
        mounts = [each for word in words if Path(word).is_file() for each in ("-v", f"{word}:{word}:ro")]
        for word in words:
            if Path(word).is_file():
                Path(word).chmod(0o644)
        return self.compose("run", "--rm", "-T", *mounts, "operator", *words, given=given)

    def containers(self, *services: str) -> list[Container]:
        """All of the project's, or those of some services."""
        listed = run(["docker", "ps", "-aq", "--filter", f"label={_LABEL}={self.name}"]).split()
        described = json.loads(run(["docker", "inspect", *listed])) if listed else []
        found = [Container(each) for each in described]
        return [each for each in found if not services or each.service in services]

    def wait_until_well(self) -> None:
        """Until each container is healthy, or done."""
        deadline = time.monotonic() + HEALTHY_SECONDS
        while ill := [each.service for each in self.containers() if not each.is_well]:
            if time.monotonic() > deadline:
                said = self.compose("logs", "--tail", "40", *ill)
                pytest.fail(f"not well after {HEALTHY_SECONDS} s: {ill}\n{said}")
            time.sleep(1)

    def kill(self, containers: Sequence[Container]) -> None:
        """SIGKILL to the first process of each; not by the engine, which would leave it ended."""
        # One after the other: ending many at one moment is what the engine itself miscounts (see `down`).
        kills = "; sleep 0.5; ".join(f"kill -9 {container.pid}" for container in containers)
        killer = ["docker", "run", "--rm", "--pid", "host", "--user", "0", "--network", "none"]
        run([*killer, "--entrypoint", "/bin/sh", self.images["MEDPERF_IMAGE"], "-c", kills])

    def down(self) -> None:
        """Take it down with all its data.

        An engine can miscount who is on a network whose containers were killed, until it is started anew
        (moby/moby, issue 42119); Compose then stops before the volumes. Such an empty network is the engine's.
        """
        try:
            self.compose("down", "--volumes", "--remove-orphans")
        except pytest.fail.Exception as failure:
            if "has active endpoints" not in str(failure):
                raise
            run(["docker", "volume", "rm", *self.left_over()["volumes"]])

    def left_over(self) -> dict[str, list[str]]:
        """What the engine still has of the project."""
        own = ["--filter", f"label={_LABEL}={self.name}"]
        return {
            "containers": run(["docker", "ps", "-aq", *own]).split(),
            "volumes": run(["docker", "volume", "ls", "-q", *own]).split(),
            "networks on which something is": [
                network
                for network in run(["docker", "network", "ls", "-q", *own]).split()
                if json.loads(run(["docker", "network", "inspect", network]))[0]["Containers"]
            ],
        }


def made_images() -> dict[str, str]:
    """The images, pulled or made, by the variables that docker-compose.yml takes them from."""
    lines = run([ROOT / "tests" / "images.sh"], seconds=BUILD_SECONDS).splitlines()
    return dict(line.split("=", 1) for line in lines)
