"""What every test may ask for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from servers.postgresql import PostgresqlServer
    from servers.rabbitmq import RabbitmqServer

# A shell's background job inherits an ignored SIGINT, and would hand it on to each command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SITE_DATA = "MEDPERF_SITE_DATA"
ENGINE = "MEDPERF_TEST_ENGINE"
# It is made while other tests run; on a slow mirror that takes minutes.
BASE_SECONDS = 270
_NOT_SET = (
    f"{SITE_DATA} is not set: the tests on real X-rays did not run. It names a folder with images/, labels/."
)


@pytest.fixture(scope="session")
def site_data() -> Path:
    """A real site's data, read in place. Not set: the test is left out, loudly. Set but not there: a failure."""
    named = os.environ.get(SITE_DATA)
    if not named:
        pytest.skip(_NOT_SET)
    folder = Path(named)
    if not (folder / "images").is_dir() or not (folder / "labels" / "labels.csv").is_file():
        pytest.fail(f"{SITE_DATA} names {folder}, which has no images/ and labels/labels.csv")
    return folder


@pytest.fixture(scope="session")
def base_image() -> str:
    """The SHA-256 of an image with Python 3, in the Docker that tests/with_engines.sh started or found."""
    return _image_in("base", "failed")


@pytest.fixture(scope="session")
def podman_base_image() -> str:
    """The SHA-256 of the same image in Podman."""
    return _image_in("podman-base", "podman-failed")


@pytest.fixture(scope="session")
def rootless_base_image() -> str:
    """The SHA-256 of the same image in a Podman without root."""
    return _image_in("rootless-base", "rootless-failed")


@pytest.fixture(scope="session")
def base_sif() -> Path:
    """The same image as a Singularity file."""
    return Path(_image_in("base-sif", "sif-failed"))


def _image_in(file: str, failed: str) -> str:
    named = os.environ.get(ENGINE)
    if not named:
        pytest.fail(f"{ENGINE} is not set: run `make test`, or tests/with_engines.sh .venv/bin/python -m pytest …")
    deadline = time.monotonic() + BASE_SECONDS
    while time.monotonic() < deadline:
        if (Path(named) / failed).exists():
            pytest.fail(f"the base image could not be made: {(Path(named) / failed).read_text()[-2000:]}")
        if (Path(named) / file).exists():
            return (Path(named) / file).read_text().strip().removeprefix("sha256:")
        time.sleep(0.5)
    pytest.fail(f"the base image was not made within {BASE_SECONDS} s")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """One PostgreSQL for this process's tests. They make databases on it, and never stop it."""
    from servers.postgresql import postgresql  # imported by who asks: most tests need no server

    with postgresql(fsync=False) as server:  # it outlives every test that reads from it
        yield server


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitmqServer]:
    """One RabbitMQ node for this process's tests, with an administrator. They never stop it."""
    from servers.rabbitmq import rabbitmq

    with rabbitmq() as server:
        yield server


@pytest.fixture(scope="session")
def nginx_binary() -> Path:
    """The program."""
    from servers.nginx import find_nginx

    return find_nginx()


def pytest_collection_finish(session: pytest.Session) -> None:
    """What must not run beside each other is kept on one worker by its group: refuse to begin where it is not."""
    if not session.config.getoption("loadgroup", default=False):
        return
    loose = [
        item.nodeid for item in session.items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid
    ]
    if loose:
        raise pytest.UsageError(f"pytest-xdist does not keep {loose[0]} and {len(loose) - 1} more in their groups")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not os.environ.get(SITE_DATA):
        terminalreporter.write_line("")
        terminalreporter.write_line(_NOT_SET, red=True, bold=True)
