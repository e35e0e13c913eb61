"""A `medperf-server` as its operator has it: real processes on one store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pexpect

from medperf_contracts.versions import IDEMPOTENCY_HEADER

PROGRAM = ("-m", "services.main")
START_SECONDS, STOP_SECONDS, COMMAND_SECONDS = 60, 10, 60
ADA = {"username": "ada", "password": "sesame-sesame", "is_admin": False}


class Server:
    """A `medperf-server up` at a terminal of its own."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.terminal = pexpect.spawn(
            sys.executable,
            [*PROGRAM, "up", "--port", "0", *options],
            env=environment(home),
            encoding="utf-8",
            timeout=START_SECONDS,
        )
        self.terminal.expect(r"MedPerf server ready on (https?://[\d.]+:\d+)\r\n")
        self.url: str = self.terminal.match[1]

    @property
    def pid(self) -> int:
        return self.terminal.pid

    def stop(self, by: signal.Signals) -> int | None:
        """Its exit code; fails where it does not end in time."""
        self.terminal.kill(by)
        self.terminal.expect(pexpect.EOF, timeout=STOP_SECONDS)
        self.terminal.close()
        return self.terminal.exitstatus

    def operator_token(self) -> str:
        return (self.home / "operator.token").read_text()

    def get_store_id(self) -> str:
        return str(httpx.get(f"{self.url}/api/v1/server", trust_env=False).raise_for_status().json()["store_id"])

    def post(
        self, path: str, body: dict[str, Any], token: str, more: dict[str, str] | None = None
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}", IDEMPOTENCY_HEADER: str(uuid.uuid4()), **(more or {})}
        return httpx.post(f"{self.url}/api/v1/{path}", json=body, headers=headers, trust_env=False, timeout=30)

    def post_as_operator(self, path: str, body: dict[str, Any]) -> None:
        self.post(path, body, self.operator_token()).raise_for_status()


Start = Callable[..., Server]


@contextmanager
def servers(home: Path) -> Iterator[Start]:
    """Start servers on the store; none is left at the end."""
    started: list[Server] = []

    def begin(*options: str) -> Server:
        started.append(Server(home, *options))
        return started[-1]

    try:
        yield begin
    finally:
        for server in started:
            server.terminal.close(force=True)


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "MEDPERF_SERVER_HOME": str(home)}


def run(home: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """A `medperf-server` command where there is no terminal; `typed` is its standard input.

    Surrogates in it are bytes that are no text.
    """
    return subprocess.run(
        [sys.executable, *PROGRAM, *arguments],
        env=environment(home),
        input=typed,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=COMMAND_SECONDS,
        check=False,
    )


def refused(home: Path, *arguments: str, typed: str = "") -> str:
    """What a command says that must be refused, with a hint and without a traceback."""
    done = run(home, *arguments, typed=typed)
    assert done.returncode == 1, done
    assert done.stderr.startswith("Error: "), done.stderr
    assert "\nWhat to do: " in done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr
