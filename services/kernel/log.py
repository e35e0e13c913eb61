"""Logs: one JSON line per command and per delivery. Never bodies, never data."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

# A library's exception may tell the address that it was given, with the password in it.
_PASSWORD_IN_URL = re.compile(r"(?<=://)([^/\s:@]*):[^/\s@]+(?=@)")

FILE_BYTES_MOST = 10 * 1024 * 1024

logger = structlog.stdlib.get_logger("medperf")


class LogFile(RotatingFileHandler):
    """A log file and older ones. Where it cannot be written, work goes on: lines are lost, whole, and counted."""

    def __init__(self, path: Path | str, *, files_kept: int) -> None:
        super().__init__(path, maxBytes=FILE_BYTES_MOST, backupCount=files_kept)
        self._lost = 0
        self._whole_bytes = Path(path).stat().st_size

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line; before the first that can be written again, how many could not."""
        lost_before = self._lost
        if lost_before:
            said = {"msg": f"{lost_before} lines could not be written", **_WARNING}
            super().emit(logging.makeLogRecord(said))
        if self._lost == lost_before:
            super().emit(record)
        if self._lost == lost_before:
            self._lost = 0
        if not self._lost and self.stream is not None:
            self._whole_bytes = os.fstat(self.stream.fileno()).st_size

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the base class's name)
        """Take back what was written of the line, and say once on standard error that the log has stopped."""
        error = sys.exception()
        if not self._lost:
            with suppress(OSError, ValueError, AttributeError):  # there may be none, or nobody who reads it
                sys.stderr.write(f"The log {self.baseFilename} cannot be written ({error}): lines are lost.\n")
        self._lost += 1
        stream, self.stream = self.stream, None  # opened again by the next line
        if stream is None:
            return
        with suppress(OSError, ValueError):
            descriptor = os.dup(stream.fileno())
            with suppress(OSError):
                stream.close()  # which tries once more to write
            os.ftruncate(descriptor, self._whole_bytes)
            os.close(descriptor)

    def doRollover(self) -> None:  # noqa: N802 (the base class's name)
        """Begin a new file."""
        super().doRollover()
        self._whole_bytes = 0


_WARNING = {"name": "medperf", "levelno": logging.WARNING, "levelname": "WARNING"}


def configure(handler: logging.Handler) -> None:
    """Write JSON lines to `handler`, also what libraries log."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    formatter = structlog.stdlib.ProcessorFormatter
    handler.setFormatter(
        formatter(
            foreign_pre_chain=shared,
            processors=[formatter.remove_processors_meta, structlog.processors.JSONRenderer(), _hide_passwords],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.captureWarnings(capture=True)
    for chatty in ("httpx", "alembic", "sqlalchemy"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, formatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def warnings_only() -> logging.Handler:
    """To standard error, for a command whose own words say what it did: only what goes wrong beside is logged."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    return handler


def log_what_nobody_catches() -> None:
    """Log what ends the process or one of its threads, in place of Python's own traceback."""

    def tell(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        logger.critical("not_caught", exc_info=(kind, error, trace))

    sys.excepthook = tell
    threading.excepthook = lambda thread: tell(thread.exc_type, thread.exc_value, thread.exc_traceback)


def without_passwords(text: str) -> str:
    """The text, where addresses in it show no passwords."""
    return _PASSWORD_IN_URL.sub(r"\1:***", text)


def _hide_passwords(_: object, __: str, line: Any) -> str:
    return without_passwords(line)
