"""A result's metrics drawn on a terminal: bars and ROC curves, in Unicode where it can be shown, else in ASCII."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from medperf.drawings import Curve, Drawables, Point, Value

_BLOCKS = " ▏▎▍▌▋▊▉█"
WIDTH_MOST = 100
WIDTH_LEAST = 20
_CURVE_WIDTH_MOST = 48
# Characters are twice as high as wide.
_CURVE_RATIO = 2
_BRAILLE = 0x2800
# The dots of a braille character, by row and column.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def draw_metrics(metrics: Mapping[str, object] | None, *, is_partial: bool) -> None:
    """Draw what can be drawn, below what was printed; nothing where the output is no terminal."""
    if not sys.stdout.isatty() or not metrics:
        return
    from medperf.drawings import drawables

    # One column less: a terminal that wraps at its edge would double every line.
    width = max(WIDTH_LEAST, min(WIDTH_MOST, shutil.get_terminal_size().columns - 1))
    has_unicode = shows_unicode(sys.stdout)
    for line in drawing(drawables(metrics), width=width, has_unicode=has_unicode, is_partial=is_partial):
        click.echo(line)


def drawing(found: Drawables, *, width: int, has_unicode: bool, is_partial: bool) -> list[str]:
    """The lines of a drawing, none wider than `width` columns; none at all where nothing can be drawn."""
    if not found.curves and all(value.share is None for value in found.values):
        return []
    lines = ["", "Metrics, bars from 0 to 1"]
    if is_partial:
        lines.append("Partial: the model failed on some of the cases.")
    lines += bars(found.values, width, has_unicode)
    for curve in found.curves:
        lines += ["", *_curve(curve, width, has_unicode)]
    if found.left_out:
        lines += ["", f"{found.left_out:,} more are not drawn: they stand above."]
    shown = lines if has_unicode else [line.encode("ascii", "backslashreplace").decode() for line in lines]
    return [_cut(line, width, has_unicode) for line in shown]


def shows_unicode(stream: TextIO) -> bool:
    """Whether bars can be written to a stream as blocks."""
    try:
        f"{_BLOCKS}…".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def bars(values: tuple[Value, ...], width: int, has_unicode: bool) -> list[str]:
    """A line for each value, at most `width` columns wide: its name, its number, and a bar for its share."""
    if not values:
        return []
    names = [_as_shown(value.path, has_unicode) for value in values]
    name_width = min(max(_columns(name) for name in names), width // 3)
    numbers = [_columns(value.shown) for value in values if value.share is not None]
    number_width = max(numbers, default=0)
    bar_width = max(1, width - name_width - number_width - 4)
    lines = []
    for name, value in zip(names, values, strict=True):
        shown = _as_shown(value.shown, has_unicode)
        line = f"{_padded(_cut(name, name_width, has_unicode), name_width)}  {shown:>{number_width}}"
        if value.share is not None:
            line += "  " + _bar(value.share, bar_width, has_unicode)
        lines.append(line)
    return lines


def _bar(share: float, width: int, has_unicode: bool) -> str:
    if not has_unicode:
        full = round(share * (width - 2))
        return f"|{'#' * full}{' ' * (width - 2 - full)}|" if width > 2 else ""
    full, part = divmod(round(share * width * 8), 8)
    return (_BLOCKS[8] * full + (_BLOCKS[part] if part else "")).ljust(width, "·")


def _curve(curve: Curve, width: int, has_unicode: bool) -> list[str]:
    columns = min(_CURVE_WIDTH_MOST, width - 6)
    rows = max(4, columns // (2 * _CURVE_RATIO) + 2)
    canvas = (_braille if has_unicode else _stars)(curve.points, columns, rows)
    side, corner, floor = ("│", "└", "─") if has_unicode else ("|", "+", "-")
    marks = {0: "1", rows - 1: "0"}
    lines = [f"{_as_shown(curve.path, has_unicode)}: ROC curve, {curve.given:,} points"]
    lines += [f"{marks.get(row, ' '):>3} {side}{text}" for row, text in enumerate(canvas)]
    axis = "false positive rate" if columns > 24 else "FPR"
    up = "true positive rate" if columns > 24 else "TPR"
    return [*lines, f"    {corner}{floor * columns}", f"     0{axis:^{columns - 2}}1", f"     Up: {up}"]


def _braille(points: tuple[Point, ...], columns: int, rows: int) -> list[str]:
    cells = [[0] * columns for _ in range(rows)]
    for across, up in _dots(points, columns * 2, rows * 4):
        cells[up // 4][across // 2] |= _DOTS[up % 4][across % 2]
    diagonal = set(_cells_of_chance(columns, rows))
    return [
        "".join(
            chr(_BRAILLE | dots) if dots else "·" if (column, row) in diagonal else " "
            for column, dots in enumerate(line)
        )
        for row, line in enumerate(cells)
    ]


def _stars(points: tuple[Point, ...], columns: int, rows: int) -> list[str]:
    cells = [[" "] * columns for _ in range(rows)]
    for column, row in _cells_of_chance(columns, rows):
        cells[row][column] = "."
    for column, row in _dots(points, columns, rows):
        cells[row][column] = "*"
    return ["".join(line) for line in cells]


def _cells_of_chance(columns: int, rows: int) -> list[tuple[int, int]]:
    """Where a model that guesses would be, every second cell of it."""
    return [
        (column, rows - 1 - round(column / (columns - 1) * (rows - 1)))
        for column in range(0, columns, _CURVE_RATIO)
    ]


def _dots(points: tuple[Point, ...], columns: int, rows: int) -> set[tuple[int, int]]:
    """The dots of the lines between the points, counted from the left and from the top."""
    placed = [(across * (columns - 1), (1 - up) * (rows - 1)) for across, up in points]
    dots = set()
    for (x, y), (next_x, next_y) in pairwise(placed):
        steps = max(1, round(max(abs(next_x - x), abs(next_y - y))))
        for step in range(steps + 1):
            part = step / steps
            dots.add((round(x + part * (next_x - x)), round(y + part * (next_y - y))))
    return dots


def _as_shown(text: str, has_unicode: bool) -> str:
    return text if has_unicode else text.encode("ascii", "backslashreplace").decode()


def _columns(text: str) -> int:
    return sum(_character_columns(character) for character in text)


def _character_columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _padded(text: str, width: int) -> str:
    return text + " " * max(0, width - _columns(text))


def _cut(text: str, width: int, has_unicode: bool) -> str:
    if _columns(text) <= width:
        return text
    end = "…" if has_unicode else "~"
    kept, left = "", width - 1
    for character in text:
        left -= _character_columns(character)
        if left < 0:
            break
        kept += character
    return kept + end
