"""What the gateway takes from anybody: the bounds and the form of a request, before a service is asked.

The proxy's configuration is rendered with these; the embedded gateway asks `refusal_of`.
"""

from __future__ import annotations

import re

from starlette.types import Scope

from services.kernel.errors import AppError, BadHttpRequest

from .errors import AddressTooLong, HeadersTooLarge

# An access token is some 400 bytes, the longest query a few hundred. One line of a request's head may be so long.
HEAD_LINE_BYTES_MOST = 16 * 1024
# Two readers of an address must not find two different paths in it, so it has one spelling: no empty or dot
# segment, no escaped slash, dot, backslash or NUL. Read before anything is decoded, without the query.
NOT_PLAIN = r"^[^?]*(//|/\.\.?(/|\?|$)|\\|%(00|2e|2f|5c))"

_NOT_PLAIN = re.compile(NOT_PLAIN, re.IGNORECASE)
_HOST = re.compile(rb"[^\x00-\x20/\x7f]+")


def refusal_of(scope: Scope) -> AppError | None:
    """Why the gateway does not look for a service; None where it does."""
    target: bytes = scope.get("raw_path") or scope["path"].encode()
    if len(target) + len(scope["query_string"]) > HEAD_LINE_BYTES_MOST:
        return AddressTooLong(f"The address has more than {HEAD_LINE_BYTES_MOST} bytes.")
    if any(len(name) + len(value) > HEAD_LINE_BYTES_MOST for name, value in scope["headers"]):
        return HeadersTooLarge(f"A header has more than {HEAD_LINE_BYTES_MOST} bytes.")
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if len(hosts) > 1 or not all(_HOST.fullmatch(host) for host in hosts):
        return BadHttpRequest("The Host header is malformed.")
    if _NOT_PLAIN.search(target.decode("latin-1")):
        return BadHttpRequest("The address is not in its plain form.")
    return None
