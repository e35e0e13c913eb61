"""What of a result's metrics can be drawn, on a terminal and in a page: shares as bars, ROC points as a curve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from medperf.terminal import printable

# A page or a screen that nobody reads to its end says less than a shorter one that names what it leaves out.
VALUES_MOST = 200
CURVES_MOST = 8
# More than a screen or a sheet of paper has dots for.
POINTS_MOST = 500
_DEPTH_MOST = 32
_PATH_CHARACTERS_MOST = 120
_TEXT_CHARACTERS_MOST = 80

Point = tuple[float, float]


@dataclass(frozen=True)
class Value:
    """A metric by its path, such as `by_sex.f.auc`; `share` is its number where a bar can stand for it."""

    path: str
    shown: str
    exact: str
    share: float | None = None


@dataclass(frozen=True)
class Curve:
    """A ROC curve by its path: points (false positive rate, true positive rate) from left to right."""

    path: str
    points: tuple[Point, ...]
    given: int


@dataclass(frozen=True)
class Drawables:
    """What can be drawn of one result's metrics, and how many metrics and curves are beyond the bounds."""

    values: tuple[Value, ...]
    curves: tuple[Curve, ...]
    left_out: int


def drawables(metrics: Mapping[str, object]) -> Drawables:
    """What can be drawn of metrics, in the order in which they were written."""
    values: list[Value] = []
    curves: list[Curve] = []
    left_out = 0
    for found in _found(metrics, "", 1):
        kept: list[Value] | list[Curve] = curves if isinstance(found, Curve) else values
        if len(kept) < (CURVES_MOST if isinstance(found, Curve) else VALUES_MOST):
            kept.append(found)  # type: ignore[arg-type]
        else:
            left_out += 1
    return Drawables(tuple(values), tuple(curves), left_out)


def roc_points(key: str, value: object) -> tuple[Point, ...] | None:
    """The points of a ROC curve from left to right, or None where this is none.

    A curve is a mapping with two lists `fpr` and `tpr` of one length, or a list of pairs `[fpr, tpr]` under the
    key `roc`: two points or more, every number from 0 to 1.
    """
    if isinstance(value, Mapping):
        across, up = value.get("fpr"), value.get("tpr")
        if not isinstance(across, list) or not isinstance(up, list) or len(across) != len(up):
            return None
        pairs: list[object] = [list(pair) for pair in zip(across, up, strict=True)]
    elif key == "roc" and isinstance(value, list):
        pairs = value
    else:
        return None
    points = [point for pair in pairs if (point := _point(pair)) is not None]
    return tuple(sorted(points)) if len(points) == len(pairs) >= 2 else None


def shown_number(number: float) -> str:
    """A number in few digits; what is not quite 0 or 1 is not rounded to it."""
    if isinstance(number, int):
        return str(number)
    if not 0 <= number <= 1:
        return f"{number:.6g}"
    rounded = f"{number:.4f}"
    return rounded if number in (0, 1) or rounded not in ("0.0000", "1.0000") else repr(number)


def one_line(text: str, most: int = _PATH_CHARACTERS_MOST) -> str:
    """What a container wrote as one harmless line, cut where it is too long."""
    line = printable(text[: most + 1].replace("\n", "\\n"))
    return line if len(line) <= most else line[: most - 1] + "…"


def _found(value: Mapping[str, object], path: str, depth: int) -> Iterator[Value | Curve]:
    for key, inner in value.items():
        # Cut on the way down: thousands of long keys inside each other stay cheap.
        name = one_line(f"{path}.{key}" if path else key)
        points = roc_points(key, inner)
        if points is not None:
            yield Curve(name, _thinned(points), len(points))
        if not isinstance(inner, Mapping):
            if points is None:
                yield _value(name, inner)
        elif depth < _DEPTH_MOST:
            beside = {"fpr", "tpr", "thresholds"} if points is not None else set()
            yield from _found({k: v for k, v in inner.items() if k not in beside}, name, depth + 1)


def _value(path: str, value: object) -> Value:
    if value is None:
        return Value(path, "undefined", "null")
    if isinstance(value, bool):
        return Value(path, str(value).lower(), str(value).lower())
    if isinstance(value, float):
        # A whole number is a count, though it be 0 or 1.
        share = abs(value) if 0 <= value <= 1 else None
        return Value(path, shown_number(value), repr(value), share)
    if isinstance(value, int):
        return Value(path, shown_number(value), str(value))
    if isinstance(value, list):
        words = f"a list of {len(value)}"
        return Value(path, words, words)
    text = one_line(str(value), _TEXT_CHARACTERS_MOST)
    return Value(path, text, text)


def _point(pair: object) -> Point | None:
    if not isinstance(pair, list) or len(pair) != 2:
        return None
    across, up = (_rate(number) for number in pair)
    return None if across is None or up is None else (across, up)


def _rate(number: object) -> float | None:
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
        return None
    return abs(float(number))


def _thinned(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """At most POINTS_MOST of them, the first and the last among them."""
    if len(points) <= POINTS_MOST:
        return points
    last = len(points) - 1
    return tuple(points[round(place * last / (POINTS_MOST - 1))] for place in range(POINTS_MOST))
