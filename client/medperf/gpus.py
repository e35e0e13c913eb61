"""The GPUs of this machine, and which of them containers may have."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

from medperf.errors import UsageError
from medperf.manifest.model import ALL_GPUS

# A driver in trouble makes it hang.
_ANSWER_SECONDS = 20
_LISTED = re.compile(r"^GPU \d+: .*\(UUID: (GPU-[0-9a-fA-F-]{8,64})\)\s*$", re.MULTILINE)
_DEVICES = "device="


def find_gpus() -> tuple[str, ...]:
    """The UUIDs of this machine's NVIDIA GPUs, in their order; none where `nvidia-smi` is not there or fails."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"],
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ()
    return tuple(_LISTED.findall(listed.stdout))


def allowed_gpus(asked: str, there: Sequence[str]) -> tuple[str, ...]:
    """Those of `there` that a person allows: `all`, a count, `device=` with numbers or UUIDs; none for 0.

    UsageError for any other word, and for more than there are.
    """
    if asked == ALL_GPUS:
        return tuple(there)
    if asked.startswith(_DEVICES):
        return tuple(dict.fromkeys(_device(word.strip(), there) for word in asked[len(_DEVICES) :].split(",")))
    if asked and not (asked.isascii() and asked.isdecimal()):
        raise UsageError(
            f"--gpus {asked!r:.60} is neither all, nor a count, nor device=0,2.", hint=_what_there_is(there)
        )
    count = int(asked or 0)
    if count > len(there):
        raise UsageError(f"--gpus asks for {count} GPUs.", hint=_what_there_is(there))
    return tuple(there[:count])


def _device(word: str, there: Sequence[str]) -> str:
    if word in there:
        return word
    if word.isascii() and word.isdecimal() and int(word) < len(there):
        return there[int(word)]
    raise UsageError(f"There is no GPU {word!r:.60} on this machine.", hint=_what_there_is(there))


def _what_there_is(there: Sequence[str]) -> str:
    if not there:
        return "`nvidia-smi -L` lists no GPU here. Leave --gpus away, and containers have the processors."
    return f"`nvidia-smi -L` lists {len(there)}, numbered from 0; `--gpus 0` gives none."
