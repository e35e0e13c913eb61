"""Files of numbers that containers write (statistics, metrics), read as what they are: somebody else's."""

from __future__ import annotations

import json
import math
from pathlib import Path

from pydantic import JsonValue

from medperf import safe_yaml
from medperf.engines.outputs import read_output
from medperf.errors import ContainerFailed
from medperf_contracts.bounds import REPORT_BYTES_MOST, REPORT_DEPTH_MOST
from medperf_contracts.values import CONTROL_BUT_NEWLINE

# YAML with its white space; what is in it is bounded by `REPORT_BYTES_MOST`.
LIMIT_BYTES = 1024 * 1024
_HINT = "Tell the container's owner: it must write one YAML file of numbers, text and lists."


def read_report(file: Path, *, inside: Path, what: str) -> dict[str, JsonValue]:
    """The mapping in a YAML file that a container wrote under `inside`; `what` names it in errors.

    NaN and the infinities become null: a number that is not defined is kept as such, and JSON knows no other way
    to say it. ContainerFailed for a file that is missing, a link, empty, not a mapping, or larger or deeper than a
    request can carry.
    """
    content = read_output(file, inside=inside, limit_bytes=LIMIT_BYTES)
    value = safe_yaml.load(content, what=what, limit_bytes=LIMIT_BYTES, error=ContainerFailed, hint=_HINT)
    if not isinstance(value, dict) or not value:
        raise ContainerFailed(f"{what} hold nothing: a mapping of names to values is needed.", hint=_HINT)
    defined = _defined(value, what)
    if len(json.dumps(defined).encode()) > REPORT_BYTES_MOST:
        raise ContainerFailed(f"{what} hold more than {REPORT_BYTES_MOST:,} bytes.", hint=_HINT)
    if not isinstance(defined, dict):
        raise TypeError("a mapping stays one")
    return defined


def _defined(value: object, what: str, depth: int = 1) -> JsonValue:
    if depth > REPORT_DEPTH_MOST:
        raise ContainerFailed(f"{what} hold more than {REPORT_DEPTH_MOST} levels.", hint=_HINT)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_text(key, what): _defined(inner, what, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [_defined(inner, what, depth + 1) for inner in value]
    if isinstance(value, str):
        return _text(value, what)
    if value is None or isinstance(value, bool):
        return value
    # JSON has no bound on a whole number, but its readers do: beyond 64 bits they lose digits or fail.
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    raise ContainerFailed(f"{what} hold a value that cannot be kept: {value!r:.60}", hint=_HINT)


def _text(text: str, what: str) -> str:
    if CONTROL_BUT_NEWLINE.search(text):
        raise ContainerFailed(f"{what} hold control characters in {text!r:.60}.", hint=_HINT)
    return text
