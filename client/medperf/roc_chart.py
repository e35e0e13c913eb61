"""ROC curves as one SVG inside a page: a line for each model, told apart by its dashes as well as its colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medperf.drawings import Curve

COLOURS = 6
_SIDE = 300
_LEFT, _TOP, _BOTTOM, _RIGHT = 48, 12, 44, 14
# With the colours these are twelve looks, and lines that cover each other show both.
_DASHES = ("", "7 4", "2 3", "10 3 2 3")


@dataclass(frozen=True)
class Line:
    """A model's curve, its title as HTML, and the model's place among those of the page."""

    title: str
    place: int
    curve: Curve


def roc_chart(identity: str, heading: str, lines: Sequence[Line]) -> str:
    """A figure of curves under their heading, which is HTML; `identity` is unique in the page."""
    width, height = _LEFT + _SIDE + _RIGHT, _TOP + _SIDE + _BOTTOM
    models = ", ".join(line.title for line in lines)
    return "\n".join(
        [
            "<figure>",
            f"<figcaption>{heading}</figcaption>",
            f'<svg class="roc" viewBox="0 0 {width} {height}" role="img"'
            f' aria-labelledby="{identity}t {identity}d">',
            f'<title id="{identity}t">ROC curve {heading}</title>',
            f'<desc id="{identity}d">True positive rate against false positive rate of {models}.</desc>',
            *_axes(),
            *(_polyline(line) for line in lines),
            "</svg>",
            "<ul>",
            *(_legend(line) for line in lines),
            "</ul>",
            "</figure>",
        ]
    )


def _axes() -> list[str]:
    right, bottom = _LEFT + _SIDE, _TOP + _SIDE
    parts = []
    for step in range(5):
        share = step / 4
        x, y = _LEFT + share * _SIDE, bottom - share * _SIDE
        parts.append(f'<path class="grid" d="M{x:g} {_TOP}V{bottom}M{_LEFT} {y:g}H{right}"/>')
        parts.append(f'<text x="{x:g}" y="{bottom + 16}" text-anchor="middle">{share:g}</text>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:g}" text-anchor="end">{share:g}</text>')
    middle_x, middle_y = _LEFT + _SIDE / 2, _TOP + _SIDE / 2
    return [
        *parts,
        f'<path class="chance" d="M{_LEFT} {bottom}L{right} {_TOP}"/>',
        f'<text x="{middle_x:g}" y="{bottom + 36}" text-anchor="middle">False positive rate</text>',
        f'<text x="12" y="{middle_y:g}" text-anchor="middle" transform="rotate(-90 12 {middle_y:g})">'
        "True positive rate</text>",
    ]


def _polyline(line: Line) -> str:
    points = " ".join(
        f"{_LEFT + across * _SIDE:.1f},{_TOP + (1 - up) * _SIDE:.1f}" for across, up in line.curve.points
    )
    return f'<polyline {_look(line)} points="{points}"/>'


def _legend(line: Line) -> str:
    sample = f'<polyline {_look(line)} points="1,4 27,4"/>'
    swatch = f'<svg class="swatch" viewBox="0 0 28 8" aria-hidden="true">{sample}</svg>'
    return f"<li>{swatch}{line.title}: {line.curve.given:,} points</li>"


def _look(line: Line) -> str:
    dashes = _DASHES[line.place % len(_DASHES)]
    return f'class="line c{line.place % COLOURS}"' + (f' stroke-dasharray="{dashes}"' if dashes else "")
