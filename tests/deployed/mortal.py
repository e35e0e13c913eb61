"""A process of a deployment that can be killed at a moment: `mortal.py MOMENTS COMMAND…` runs `medperf-server`.

A file in the folder MOMENTS, named after a moment, is taken away when that moment comes next, and the process
kills itself there. Everything else is the program's own.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

from aio_pika.message import IncomingMessage

from services import main
from services.kernel import http
from services.kernel.relay import Relay

BEFORE_MARK, BEFORE_ACK, BEFORE_ANSWER = "before mark", "before ack", "before answer"
WORKERS_MOMENTS, WEBS_MOMENTS = (BEFORE_MARK, BEFORE_ACK), (BEFORE_ANSWER,)


def die_if_told(moments: Path, name: str) -> None:
    """The end, once: whoever is started next goes on."""
    with suppress(FileNotFoundError):
        (moments / name).unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def before(function: Callable[..., Awaitable[Any]], moments: Path, name: str) -> Callable[..., Awaitable[Any]]:
    """The function, and death before it."""

    @wraps(function)
    async def mortal(*arguments: Any, **options: Any) -> Any:
        die_if_told(moments, name)
        return await function(*arguments, **options)

    return mortal


def after(function: Callable[..., Awaitable[Any]], moments: Path, name: str) -> Callable[..., Awaitable[Any]]:
    """The function, and death after it."""

    @wraps(function)
    async def mortal(*arguments: Any, **options: Any) -> Any:
        result = await function(*arguments, **options)
        die_if_told(moments, name)
        return result

    return mortal


if __name__ == "__main__":
    folder, *words = sys.argv[1:]
    at = Path(folder)
    Relay._mark = before(Relay._mark, at, BEFORE_MARK)  # type: ignore[method-assign]
    IncomingMessage.ack = before(IncomingMessage.ack, at, BEFORE_ACK)  # type: ignore[method-assign]
    http._command = after(http._command, at, BEFORE_ANSWER)  # type: ignore[assignment]
    sys.argv = ["medperf-server", *words]
    main.main()
