"""Logs: one JSON line per command and per delivery. Never bodies, never data."""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
from contextlib import suppress
from contextvars import ContextVar
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog

# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)

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
            processors=[formatter.remove_processors_meta, structlog.processors.JSONRenderer()],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for chatty in ("httpx", "alembic", "sqlalchemy"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, formatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def enter_trace(header: str | None) -> str:
    """Go on with the caller's trace, or begin one; returns the trace context."""
    if header is None or not _TRACEPARENT.fullmatch(header):
        header = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    _traceparent.set(header)
    return header


def current_traceparent() -> str | None:
    """The trace context of the command or delivery at work."""
    return _traceparent.get()


def current_trace_id() -> str | None:
    """The trace's ID alone, as it stands in log lines."""
    traceparent = _traceparent.get()
    return traceparent.split("-")[1] if traceparent else None
