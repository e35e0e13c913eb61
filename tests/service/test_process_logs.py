"""What a deployment's processes write: one JSON line for each thing, and never a password."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import httpx
import pytest
import structlog

from servers.life import free_port
from services.kernel import log
from services.secret_files import create

START_SECONDS, STOP_SECONDS = 60.0, 20.0
# Characters that an address must quote, and that would show a password which was quoted badly.
PASSWORD = "p@ss/w:rd-of-the-broker"
FORMS = (PASSWORD, urllib.parse.quote(PASSWORD, safe=""), urllib.parse.quote(PASSWORD))


class Process:
    """A `medperf-server run` or `work` without any server to lean on, and all that it writes."""

    def __init__(self, folder: Path, *argv: str, **more: str) -> None:
        self.monitor = free_port()
        environment = {
            **os.environ,
            "MEDPERF_DATABASE_SERVER": f"postgresql://127.0.0.1:{free_port()}",
            "MEDPERF_BROKER_SERVER": f"amqp://127.0.0.1:{free_port()}",
            "MEDPERF_SECRETS": str(folder),
            **more,
        }
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "services.main", *argv, "--host=127.0.0.1", f"--monitor-port={self.monitor}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        self._lines.extend(iter(self._popen.stdout.readline, ""))
        self._popen.stdout.close()

    def await_event(self, event: str) -> None:
        """Until it has logged that."""
        deadline = time.monotonic() + START_SECONDS
        while not any(f'"{event}"' in line for line in list(self._lines)):
            assert time.monotonic() < deadline, f"no {event}: {self._lines}"
            assert self._popen.poll() is None, self._lines
            time.sleep(0.05)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.monitor}{path}", trust_env=False, timeout=10)

    def end(self) -> list[dict[str, object]]:
        """Stop it; every line that it wrote, which must be JSON and show no password."""
        self._popen.send_signal(signal.SIGTERM)
        code = self._popen.wait(STOP_SECONDS)
        self._reading.join()
        assert code == 0, self._lines
        for line in self._lines:
            assert not [form for form in FORMS if form in line], line
        return [json.loads(line) for line in self._lines]

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()
        self._reading.join()


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    create(folder)
    for name in ("results_broker_password", "results_database_password"):
        (folder / name).write_text(PASSWORD)
    return folder


@pytest.fixture
def worker(secrets: Path) -> Iterator[Process]:
    # An address of the collector's own with a password: its exporter fails too, and says so.
    collector = f"http://medperf:{FORMS[1]}@127.0.0.1:{free_port()}"
    process = Process(secrets, "work", "results", OTEL_EXPORTER_OTLP_ENDPOINT=collector)
    yield process
    process.kill()


@pytest.fixture
def web(secrets: Path) -> Iterator[tuple[Process, int]]:
    port = free_port()
    process = Process(secrets, "run", "results", f"--port={port}")
    yield process, port
    process.kill()


def test_a_worker_without_its_servers_writes_json_lines_without_a_password(worker: Process) -> None:
    for event in ("listening", "consumer_lost", "relay_failed", "inbox_failed"):
        worker.await_event(event)
    metrics = worker.get("/metrics")
    assert metrics.status_code == 200
    assert 'medperf_database_up{service="results"} 0.0' in metrics.text
    assert 'medperf_consumer_connected{consumer="results.record_association"} 0.0' in metrics.text
    assert 'medperf_build_info{process="work",service="results",' in metrics.text
    ready = worker.get("/ready")
    assert ready.status_code == 503
    for text in (metrics.text, ready.text):
        assert not [form for form in FORMS if form in text]
    lines = worker.end()
    assert all({"event", "level", "timestamp"} <= set(line) for line in lines)
    assert any("aiormq" in str(line) or "creating transport" in str(line) for line in lines), (
        "a library's own line"
    )
    assert "stopping" in [line["event"] for line in lines]


def test_a_web_process_logs_the_web_servers_own_lines_as_json_too(web: tuple[Process, int]) -> None:
    process, port = web
    process.await_event("listening")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        raw.sendall(b"no http at all\r\n\r\n")
        assert b"400" in raw.recv(1000)
    answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/results?limit=1", trust_env=False)
    assert answer.status_code == 401
    assert httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).status_code == 404
    lines = process.end()
    events = [str(line["event"]) for line in lines]
    assert "Invalid HTTP request received." in events
    assert {"request", "stopping"} <= set(events)


@pytest.fixture
def written() -> Iterator[StringIO]:
    """A log of this process's own; the test's are put back."""
    root, stream = logging.getLogger(), StringIO()
    handlers, level = root.handlers[:], root.level
    log.configure(logging.StreamHandler(stream))
    yield stream
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_no_line_shows_the_password_of_an_address_wherever_it_stands(written: StringIO) -> None:
    address = f"amqp://results:{FORMS[1]}@broker:5672/medperf"
    library = logging.getLogger("a.library")
    library.error("cannot reach %s", address)
    library.error("as an argument", extra={"url": address})
    try:
        raise ConnectionError(f"no answer from {address}")
    except ConnectionError:
        library.exception("failed")
    lines = written.getvalue().splitlines()
    assert len(lines) == 3
    for line in lines:
        assert json.loads(line)
        assert FORMS[1] not in line
    assert "amqp://results:***@broker:5672/medperf" in json.loads(lines[0])["event"]
    assert "amqp://results:***@broker:5672/medperf" in json.loads(lines[2])["exception"]


def test_a_log_that_was_written_to_is_configured_anew_like_any_other(written: StringIO) -> None:
    """Else what one test has configured would keep the lines of all tests after it."""
    log.logger.info("one")
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as lines:
        log.logger.info("two")
    assert [line["event"] for line in lines] == ["two"]
    assert [json.loads(line)["event"] for line in written.getvalue().splitlines()] == ["one"]


def test_warnings_and_what_nobody_catches_are_json_lines() -> None:
    """In a process of its own: pytest takes a process's warnings and what its threads raise."""
    ends = (
        "import logging, sys, threading, warnings; from services.kernel import log;"
        "log.configure(logging.StreamHandler(sys.stdout)); log.log_what_nobody_catches();"
        "warnings.warn('soon to be removed');"
        "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join();"
        "raise ValueError('the end')"
    )
    done = subprocess.run([sys.executable, "-c", ends], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")
    warned, thread, end = (json.loads(line) for line in done.stdout.splitlines())
    assert "soon to be removed" in warned["event"]
    assert (thread["event"], end["event"]) == ("not_caught", "not_caught")
    assert "ZeroDivisionError" in thread["exception"]
    assert "ValueError: the end" in end["exception"]
