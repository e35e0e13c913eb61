"""One rule of what may be shown, for names, paths and what containers print."""

from __future__ import annotations

import sys

from medperf.engines.logs import clean
from medperf.terminal import printable, printable_path

HIDES = "a\u200bb\u2060c\ufeffd\U000e0041e"


def test_a_character_without_width_is_shown_as_its_escape() -> None:
    assert printable(HIDES) == r"a\u200bb\u2060c\ufeffd\U000e0041e"
    assert printable_path(HIDES.encode()) == printable(HIDES)


def test_what_a_name_shows_escaped_a_containers_line_leaves_out() -> None:
    # Escapes that begin longer sequences, and the tab and the end of a line, have a meaning in a line of output.
    in_lines = {*"\t\n\r\x1b\x90\x98\x9b\x9d\x9e\x9f"}
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        if character not in in_lines:
            is_left_out = clean(f"a{character}b") == "ab"
            assert is_left_out == (printable(character) != character), hex(number)
