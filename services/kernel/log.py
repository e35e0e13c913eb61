"""Logs: one JSON line per command and per delivery. Never bodies, never data."""

from __future__ import annotations

import logging
import re
import secrets
from contextvars import ContextVar

import structlog

# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)

logger = structlog.stdlib.get_logger("medperf")


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
