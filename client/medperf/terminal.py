"""What may be shown on a terminal: no character that paints it, hides text, or turns its direction round."""

from __future__ import annotations

import re

# C0 and C1 controls but the newline, separators of lines and paragraphs, characters that reorder text or have no
# width, and lone surrogates, which cannot be written at all.
UNPRINTABLE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """Text with each such character written as its escape, such as `\\x1b`; newlines stay."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def printable_path(path: bytes) -> str:
    """A path in one line: bytes that are no text stand as escapes too, and newlines."""
    return printable(path.decode(errors="backslashreplace")).replace("\n", "\\n")
