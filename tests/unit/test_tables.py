"""What is printed: tables, YAML, JSON; and never what paints a terminal."""

from __future__ import annotations

import io
import json
import threading
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from medperf.cli import progress as progress_module
from medperf.cli.progress import Progress
from medperf.cli.tables import as_json, as_yaml, print_table
from medperf.terminal import printable
from medperf_contracts.associations import AssociationDecision

PAINT = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202egpj.exe\r\x00"


def test_control_characters_are_shown_as_their_escapes() -> None:
    shown = printable(PAINT)
    assert shown == "\\x1b[31mred\\x1b]0;title\\x07\\x9b2J\\u202egpj.exe\\r\\x00"
    assert printable("Größe 日本 ✅\nsecond line") == "Größe 日本 ✅\nsecond line"


@given(st.text())
def test_nothing_printed_is_a_control_character(text: str) -> None:
    for shown in (printable(text), as_yaml({"a": text}), as_json({text: text})):
        assert all(character == "\n" or character.isprintable() or ord(character) >= 0xA0 for character in shown)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\ufeff")))
def test_yaml_shows_exactly_what_is_there(text: str) -> None:
    if printable(text) == text:
        assert yaml.safe_load(as_yaml({"text": text})) == {"text": text}


def test_yaml_of_a_body_is_the_body_as_it_is_sent() -> None:
    body = AssociationDecision(reason="first\nsecond: line")
    assert yaml.safe_load(as_yaml(body)) == json.loads(body.model_dump_json())
    assert "reason: |-\n  first\n  second: line\n" in as_yaml(body)


def test_numbers_stand_to_the_right_and_names_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([(2, "1e5", True), (14, "007", None)], ["UID", "Name", "Valid"])
    assert capsys.readouterr().out == (
        "  UID  Name    Valid\n"
        "-----  ------  -------\n"
        "    2  1e5     True\n"
        "   14  007\n"
    )  # fmt: skip


def test_the_table_of_a_benchmarks_run_looks_as_the_tutorial_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    headers = ["model", "local result UID", "partial result", "from cache", "error"]
    print_table([(2, "b1m2d1", False, True, ""), (4, "b1m4d1", False, False, "")], headers)
    assert capsys.readouterr().out == (
        "  model  local result UID    partial result    from cache    error\n"
        "-------  ------------------  ----------------  ------------  -------\n"
        "      2  b1m2d1              False             True\n"
        "      4  b1m4d1              False             False\n"
    )


def test_a_table_of_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([], ["UID"], if_empty="There are none.")
    assert capsys.readouterr().out == "There are none.\n"


def test_a_cell_is_one_line_that_paints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([(1, f"a\nb{PAINT}")], ["UID", "Name"])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 3


def test_a_sentence_in_a_cell_is_broken_into_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([(1, "many words " * 12, "yes"), (2, "few", "no")], ["UID", "What", "Read"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 90
    assert len(lines) == 2 + 2 + 1
    assert lines[-1].split() == ["2", "few", "no"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_numbers_its_steps_and_shows_what_the_container_says() -> None:
    stream = io.StringIO()
    progress = Progress(2, stream=stream)
    with progress.step("model 2 · reference"):
        progress.line("infer: 40/240 \x1b[31mimages")
    with pytest.raises(ValueError, match="no"), progress.step("model 4 · second"):
        raise ValueError("no")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[1/2] model 2 · reference"
    assert lines[1] == "      infer: 40/240 \\x1b[31mimages"
    assert lines[2].startswith("      done in 0.")
    assert lines[3] == "[2/2] model 4 · second"
    assert lines[4].startswith("      failed after 0.")
    assert "\x1b" not in stream.getvalue()


def drawn(stream: io.StringIO, text: str) -> bool:
    """Whether a text comes to stand on the terminal, of itself."""
    deadline = time.monotonic() + 10
    while text not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    return text in stream.getvalue()


def test_progress_shows_the_time_on_a_terminal_and_clears_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "_REDRAW_SECONDS", 0.05)
    stream = Terminal()
    before = set(threading.enumerate())
    progress = Progress(1, stream=stream)
    with progress.step("model"):
        assert drawn(stream, "… model: 0.")
        progress.note("1.0 of 4.0 MB")
        assert drawn(stream, " s · 1.0 of 4.0 MB")
        progress.line("said")
    assert "\r\x1b[2K      said\n" in stream.getvalue()
    assert set(threading.enumerate()) <= before


def test_progress_stands_still_while_somebody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "_REDRAW_SECONDS", 0.01)
    stream = Terminal()
    progress = Progress(1, stream=stream)
    with progress.step("model"):
        assert drawn(stream, "… model: 0.")
        with progress.paused():
            before = stream.getvalue()
            time.sleep(0.1)
            assert stream.getvalue() == before
            assert before.endswith("\r\x1b[2K")
        assert drawn(stream, before + "\r\x1b[2K      … model")
