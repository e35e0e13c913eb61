"""The real `medperf-server up`, killed with SIGKILL at chosen moments and started again on the same port.

    launched_server.py MOMENTS up --port N

MOMENTS is a folder. Each file in it is a moment, in the order of their names: a kind and a number. The first one
is armed; when it comes, its file is renamed to `fired-…` and the process kills itself. The instruments are patched
into this process only; the server's own code has no hook. Modules are loaded once, and each life is a fork.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from services import main as program
from services.embedded import server
from services.kernel import http, inbox
from services.kernel.relay import Relay

_FIRED = "fired-"
_LOOK_SECONDS = 0.01
_PR_SET_PDEATHSIG = 1


class Moments:
    """What is armed, counted in this life of the server."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, int] = {}

    def armed(self) -> Path | None:
        return min((file for file in self._folder.iterdir() if not file.name.startswith(_FIRED)), default=None)

    def reached(self, kind: str) -> None:
        """The server is at a seam of this kind: die here, if it is the armed moment's turn."""
        moment = self.armed()
        if moment is None or moment.read_text().split()[0] != kind:
            return
        self._seen[moment.name] = self._seen.get(moment.name, 0) + 1
        if self._seen[moment.name] == int(moment.read_text().split()[1]):
            self.die(moment)

    def die(self, moment: Path) -> NoReturn:
        moment.rename(moment.with_name(_FIRED + moment.name))
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("nobody outlives SIGKILL")

    def watch_the_clock(self) -> None:
        """Die so many milliseconds after a moment of the kind `time` was armed, whatever is going on."""
        while True:
            time.sleep(_LOOK_SECONDS)
            moment = self.armed()
            if moment is not None and moment.read_text().split()[0] == "time":
                time.sleep(int(moment.read_text().split()[1]) / 1000)
                self.die(moment)


def instrument(moments: Moments) -> None:
    command, handle_once, mark = http._command, inbox.handle_once, Relay._mark

    async def answer_lost(*arguments: Any) -> Any:
        response = await command(*arguments)
        moments.reached("answer")
        return response

    async def effect_lost(*arguments: Any) -> bool:
        was_first = await handle_once(*arguments)
        moments.reached("effect")
        return was_first

    async def mark_lost(relay: Relay, **positions: list[int]) -> None:
        moments.reached("mark")
        await mark(relay, **positions)

    http._command = answer_lost
    inbox.handle_once = effect_lost
    Relay._mark = mark_lost  # type: ignore[method-assign]


def live(moments: Moments, arguments: list[str]) -> NoReturn:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    instrument(moments)
    threading.Thread(target=moments.watch_the_clock, daemon=True).start()
    sys.argv = ["medperf-server", *arguments]
    program.main()
    sys.exit(0)


def supervise(live_once: Callable[[], NoReturn]) -> int:
    """Start the server again whenever it was killed; its exit code once it ended by itself or was told to."""
    while True:
        child = os.fork()
        if child == 0:
            live_once()

        def pass_on(number: int, _frame: object, to: int = child) -> None:
            os.kill(to, number)

        signal.signal(signal.SIGTERM, pass_on)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    assert server.DEFINITIONS
    folder, *words = sys.argv[1:]
    sys.exit(supervise(lambda: live(Moments(Path(folder)), words)))
