"""The real `medperf` command, run again and again from one process that has loaded it: each run is a fork.

Reads an order a line from standard input, as JSON, and answers each with a line of JSON. An order may have the
process kill or interrupt itself just before the n-th time that it touches the world: opens a file for writing,
renames, removes, makes, connects. The instruments are an audit hook and shorter bounds, in the fork only.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from faults.loaded import load_everything
from faults.local_folder import check_whole
from medperf.home import Home

_TOUCHES = {
    "os.chmod",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.truncate",
    "socket.connect",
    "sqlite3.connect",
    "subprocess.Popen",
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_PR_SET_PDEATHSIG = 1


class Touches:
    """Counts how often this process touched the world, and ends it before the chosen time."""

    def __init__(self, at: int, by: int, counter: Path) -> None:
        self._at = at
        self._by = by
        self._process = os.getpid()
        self._counter = os.open(counter, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.count = 0

    def __call__(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open":
            if not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
                return
        elif name not in _TOUCHES:
            return
        if os.getpid() != self._process:
            return
        self.count += 1
        os.pwrite(self._counter, str(self.count).encode(), 0)
        if self.count == self._at:
            os.kill(self._process, self._by)


def run(order: dict[str, Any]) -> NoReturn:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    output = os.open(order["output"], os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    given = os.memfd_create("stdin")
    os.write(given, order["stdin"].encode())
    os.lseek(given, 0, os.SEEK_SET)
    for descriptor, place in ((given, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, place)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, "r", closefd=False))
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(place, "w", closefd=False), line_buffering=True) for place in (1, 2)
    )
    from medperf.cli.main import main

    shorten(order)
    if order.get("counter"):
        sys.addaudithook(Touches(order["at"], order["by"], Path(order["counter"])))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code: object = 0
    try:
        main(order["arguments"])
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - as the interpreter would end
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def shorten(order: dict[str, Any]) -> None:
    """Less patience and fewer images, so that a test takes seconds."""
    from medperf import api
    from medperf.tutorial import files, phantom

    assert api.Gateway.__init__.__kwdefaults__ is not None
    api.Gateway.__init__.__kwdefaults__["bound_seconds"] = order["bound_seconds"]
    files.make_dataset = lambda folder: phantom.make_dataset(folder, count=2)  # type: ignore[attr-defined]


def make_room(words: dict[str, Any]) -> None:
    """A small disk of its own (`mount`, in KiB), a folder copied to it, and all but some bytes of it filled."""
    disk = Path(words["disk"])
    if "mount_kib" in words:
        disk.mkdir(exist_ok=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={words['mount_kib']}k,mode=755", "tmpfs", disk], check=True
        )
        return
    filler = disk / "filler"
    if "empty" in words:
        for entry in disk.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if "copy" in words:
        shutil.copytree(words["copy"], disk / words["to"], symlinks=True)
    if "leave_bytes" in words:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, free - words["leave_bytes"]))
    if "free" in words:
        filler.unlink()


def fault_in(home: Home) -> str | None:
    """What of a local folder is not whole; looked at from here, where its disk is mounted."""
    try:
        check_whole(home)
    except Exception:  # noqa: BLE001 - told to the test, which fails
        return traceback.format_exc()
    return None


def serve() -> None:
    children: dict[int, int] = {}
    load_everything()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "check" in order:
            answer: dict[str, object] = {"fault": fault_in(Home(order["server"], Path(order["check"])))}
        elif "disk" in order:
            make_room(order)
            answer = {}
        elif "wait" in order:
            child = children.pop(order["wait"])
            _, status = os.waitpid(child, 0)
            answer = {"exit_code": os.waitstatus_to_exitcode(status)}
        else:
            child = os.fork()
            if child == 0:
                run(order)
            children[child] = child
            answer = {"pid": child}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
