"""The demo, ended before its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("how", ["Ctrl-C", "a closed pipe"])
def test_a_demo_that_is_ended_early_shows_no_traceback_and_leaves_nothing(tmp_path: Path, how: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tutorials.demo"],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        assert "A server of its own" in demo.stdout.readline()
        if how == "Ctrl-C":
            demo.send_signal(signal.SIGINT)
            demo.stdout.read()
        else:
            demo.stdout.close()
        said = demo.stderr.read()
        code = demo.wait(60)
    assert "Traceback" not in said
    assert code == 128 + (signal.SIGINT if how == "Ctrl-C" else signal.SIGPIPE)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("medperf-demo")] == []
