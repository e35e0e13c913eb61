"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SITE_DATA = "MEDPERF_SITE_DATA"
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not os.environ.get(SITE_DATA):
        terminalreporter.write_line("")
        terminalreporter.write_line(_NOT_SET, red=True, bold=True)
