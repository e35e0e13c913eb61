"""`make demo`: the data owner's whole path on an embedded server, typed as a person would and checked."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tutorials.path import YES, EmbeddedServer, Site, Step, StepFailed, data_owner_path, login

COMMITTEE_LOOKS = Step(
    "The committee sees the result", "medperf result view 1", shows=(r"id: 1", r"auc: 0\.\d+", "is_current: true")
)


def main() -> int:
    """Run the demo; 0 when every step ended as it must. `KEEP=1` keeps its folder."""
    folder = Path(tempfile.mkdtemp(prefix="medperf-demo-"))
    server = EmbeddedServer(folder / "server")
    began = time.monotonic()
    try:
        last_screen = _path(folder, server)
    except StepFailed as error:
        say(f"\n\nThe demo failed at this step:\n{error}\n")
        return 1
    finally:
        if server.is_running:
            server.stop()
        if os.environ.get("KEEP") == "1":
            say(f"\nKept: {folder}\n")
        else:
            shutil.rmtree(folder)
    say(f"\n=== The result on the server, as the committee saw it\n{last_screen}")
    say(f"\nEvery step ended as it must, in {time.monotonic() - began:.0f} s.\n")
    return 0


def _path(folder: Path, server: EmbeddedServer) -> str:
    say(f"=== A server of its own, in {folder}\n\n$ medperf-server up --port 0\n")
    server.start()
    say(f"MedPerf server ready on {server.url}\n\n$ medperf-server seed --demo data\n")
    say(server.command("seed", "--demo", "data"))
    site = Site(folder, server.url, say)
    for step in data_owner_path():
        _walk(site, step)
    _walk(site, Step("Clean up", "medperf tutorial clean", (YES,), ("Removed",)))
    _walk(site, login("testbenchmarkowner"))
    last_screen = _walk(site, COMMITTEE_LOOKS)
    server.stop()
    say("\n=== Empty the server\n\n$ medperf-server reset --yes\n")
    say(server.command("reset", "--yes"))
    return last_screen


def _walk(site: Site, step: Step) -> str:
    say(f"\n=== {step.title}\n")
    return site.walk(step)


def say(text: str) -> None:
    """Show it at once, also where the output is not a terminal."""
    sys.stdout.write(text)
    sys.stdout.flush()


def run() -> int:
    """The demo; Ctrl-C, or a reader that has had enough, ends it as any command, with nothing left behind."""
    try:
        return main()
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted: what the demo started is stopped.\n")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Nobody reads any more: not even the interpreter's last flush may write there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


if __name__ == "__main__":
    sys.exit(run())
