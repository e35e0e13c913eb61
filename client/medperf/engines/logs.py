"""A container's output: kept in a bounded log file, shown as lines that can do a terminal no harm."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from medperf.terminal import UNPRINTABLE

# Longer lines are cut for a person; the log keeps them whole.
MAX_LINE_CHARACTERS = 500
# What is kept of the end of a log that outgrew its bound.
TAIL_BYTES = 64 * 1024
# A line without an end is passed on in pieces of this size, so that memory stays bounded.
_PIECE_BYTES = 64 * 1024
# What is shown of a run's output; its log has a bound of its own.
_SHOWN_CHARACTERS_MOST = 1024**2

# Control sequences (CSI), strings (OSC, DCS, SOS, PM, APC; ended or not), and two-character escapes.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)


def clean(text: str) -> str:
    """One line of a container's output without terminal escapes and control characters, bounded in length."""
    # A progress bar redraws its line with carriage returns: its last state is what a person would see.
    shown = _ESCAPES.sub("", text).rstrip("\r\n").rsplit("\r", 1)[-1]
    shown = UNPRINTABLE.sub("", shown.replace("\t", "    ").replace("\n", "")).rstrip()
    return shown if len(shown) <= MAX_LINE_CHARACTERS else shown[: MAX_LINE_CHARACTERS - 1] + "…"


def last_lines(log: Path, count: int = 10) -> list[str]:
    """The last `count` lines of a log that are not empty, cleaned; none where there is no log."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            raw = file.read()
    except FileNotFoundError:
        return []
    lines = [clean(line) for line in raw.decode("utf-8", "replace").split("\n")]
    return [line for line in lines if line][-count:]


class RunLog:
    """Takes a container's output as it comes: head and tail to the file, whole lines to the caller."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.written = 0
        self.dropped = 0
        self.tail = b""
        self.unfinished = b""
        self.file = path.open("wb", buffering=0)

    def feed(self, data: bytes) -> list[str]:
        """Keep `data`; the cleaned lines that it completes."""
        room = max(0, self.limit_bytes - self.written)
        self.file.write(data[:room])
        self.written += len(data[:room])
        if len(data) > room:
            self.dropped += len(data) - room
            self.tail = (self.tail + data[room:])[-TAIL_BYTES:]
        *lines, self.unfinished = (self.unfinished + data).split(b"\n")
        if len(self.unfinished) > _PIECE_BYTES:
            lines.append(self.unfinished)
            self.unfinished = b""
        return [clean(line.decode("utf-8", "replace")) for line in lines]

    def close(self) -> list[str]:
        """Write the kept end, with a notice of what was cut; the last line where it was not ended."""
        if self.file.closed:
            return []
        if self.dropped:
            cut = self.dropped - len(self.tail)
            self.file.write(f"\n[medperf: the log is full; {cut:,} bytes were left out here]\n".encode())
            self.file.write(self.tail)
        self.file.close()
        rest, self.unfinished = self.unfinished, b""
        return [clean(rest.decode("utf-8", "replace"))] if rest else []


def shown_in_part(on_line: Callable[[str], None], log: Path) -> Callable[[str], None]:
    """Show lines up to a bound, and at it where the rest is."""
    left = _SHOWN_CHARACTERS_MOST

    def show(line: str) -> None:
        nonlocal left
        if left > 0:
            left -= len(line) + 1
            on_line(line if left > 0 else f"It says more than is shown here: the log is {log}")

    return show
