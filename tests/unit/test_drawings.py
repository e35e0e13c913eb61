"""What of metrics can be drawn, and how it looks on a terminal; whatever a container wrote."""

from __future__ import annotations

import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medperf.cli.drawn import drawing
from medperf.drawings import CURVES_MOST, POINTS_MOST, VALUES_MOST, drawables, shown_number
from medperf.terminal import printable

STEP = {"fpr": [0.0, 0.0, 1.0], "tpr": [0.0, 1.0, 1.0]}
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text(max_size=20)
METRICS = st.dictionaries(
    st.text(max_size=8) | st.sampled_from(["roc", "fpr", "tpr"]),
    st.recursive(
        LEAVES | st.just(STEP),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.just("roc"), inner, max_size=4)
        ),
    ),
    max_size=6,
)


def drawn(metrics: dict[str, Any], *, width: int = 60, has_unicode: bool = True, is_partial: bool = False) -> str:
    return "\n".join(drawing(drawables(metrics), width=width, has_unicode=has_unicode, is_partial=is_partial))


def shares(metrics: dict[str, Any]) -> dict[str, float | None]:
    return {value.path: value.share for value in drawables(metrics).values}


def columns(line: str) -> int:
    wide = {"W": 2, "F": 2}
    return sum(
        0 if unicodedata.combining(character) else wide.get(unicodedata.east_asian_width(character), 1)
        for character in line
    )


# What is a bar


def test_a_number_from_0_to_1_is_a_bar_and_a_whole_number_is_a_count() -> None:
    metrics = {"auc": 0.9, "none": 0.0, "all": 1.0, "cases": 1, "loss": 1.0000001, "gain": -0.1, "ok": True}
    assert {path for path, share in shares(metrics).items() if share is not None} == {"auc", "none", "all"}


def test_nested_metrics_are_named_by_their_path() -> None:
    assert shares({"by_sex": {"f": {"auc": 0.5}, "m": {"auc": None}}}) == {
        "by_sex.f.auc": 0.5,
        "by_sex.m.auc": None,
    }


def test_what_is_no_share_is_shown_as_a_plain_value() -> None:
    found = drawables({"a": None, "b": 12, "c": 1e300, "d": "fine\nso far", "e": [1, 2], "f": False})
    shown = {value.path: value.shown for value in found.values}
    assert shown == {
        "a": "undefined",
        "b": "12",
        "c": "1e+300",
        "d": "fine\\nso far",
        "e": "a list of 2",
        "f": "false",
    }


def test_a_number_that_is_not_quite_0_or_1_is_not_rounded_to_it() -> None:
    numbers = (0.0, 1.0, 0.5, 0.99999, 0.00001, 2.5)
    assert [shown_number(number) for number in numbers] == [
        "0.0000",
        "1.0000",
        "0.5000",
        "0.99999",
        "1e-05",
        "2.5",
    ]


# What is a curve


@pytest.mark.parametrize(
    ("metrics", "path"),
    [
        ({"roc": STEP}, "roc"),
        ({"model": {"curve": {**STEP, "thresholds": [None, 0.5, 0.1]}}}, "model.curve"),
        ({"roc": [[0, 0], [0, 1], [1, 1]]}, "roc"),
        ({"f": {"roc": [[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]}}, "f.roc"),
    ],
)
def test_roc_points_are_known_by_their_shape(metrics: dict[str, Any], path: str) -> None:
    found = drawables(metrics)
    assert [(curve.path, curve.points) for curve in found.curves] == [(path, ((0.0, 0.0), (0.0, 1.0), (1.0, 1.0)))]
    assert found.values == ()


def test_what_stands_beside_the_points_of_a_curve_is_shown() -> None:
    assert shares({"roc": {**STEP, "auc": 0.75, "thresholds": [1, 2, 3]}}) == {"roc.auc": 0.75}


@pytest.mark.parametrize(
    "metrics",
    [
        {"roc": {"fpr": [0.0, 1.0], "tpr": [0.0]}},
        {"roc": {"fpr": [0.0, None], "tpr": [0.0, 1.0]}},
        {"roc": {"fpr": [0.0, 1.5], "tpr": [0.0, 1.0]}},
        {"roc": {"fpr": [0.0, True], "tpr": [0.0, 1.0]}},
        {"roc": {"fpr": [0.0], "tpr": [0.0]}},
        {"roc": {"fpr": 0.0, "tpr": [0.0]}},
        {"roc": [[0.0, 0.0], [0.5, 0.5, 0.5]]},
        {"roc": [0.0, 1.0]},
        {"points": [[0.0, 0.0], [1.0, 1.0]]},
    ],
)
def test_what_is_not_quite_a_curve_is_none_and_its_parts_are_shown(metrics: dict[str, Any]) -> None:
    found = drawables(metrics)
    assert found.curves == ()
    assert found.values


# Bounds


def test_of_thousands_of_metrics_some_are_drawn_and_the_rest_is_counted() -> None:
    metrics = {f"m{number}": 0.5 for number in range(5000)} | {f"c{number}": STEP for number in range(50)}
    found = drawables(metrics)
    assert (len(found.values), len(found.curves)) == (VALUES_MOST, CURVES_MOST)
    assert found.left_out == 5050 - VALUES_MOST - CURVES_MOST
    assert f"{found.left_out:,} more are not drawn" in drawn(metrics)


def test_of_thousands_of_points_the_first_and_the_last_stay() -> None:
    rates = [number / 29_999 for number in range(30_000)]
    (curve,) = drawables({"roc": {"fpr": rates, "tpr": rates}}).curves
    assert (len(curve.points), curve.given) == (POINTS_MOST, 30_000)
    assert (curve.points[0], curve.points[-1]) == ((0.0, 0.0), (1.0, 1.0))


def test_a_path_of_long_names_is_cut() -> None:
    nested: Any = 0.5
    for _ in range(20):
        nested = {"x" * 10_000: nested}
    (value,) = drawables(nested).values
    assert len(value.path) <= 120


# On a terminal


def test_bars_are_as_long_as_their_numbers() -> None:
    lines = drawn({"none": 0.0, "half": 0.5, "all": 1.0}, width=34, has_unicode=False).splitlines()[2:]
    bars = [line[line.index("|") + 1 : -1] for line in lines]
    assert [bar.count("#") for bar in bars] == [0, len(bars[0]) / 2, len(bars[0])]
    assert [len(line) for line in lines] == [34] * 3


def test_a_partial_result_says_so() -> None:
    assert "Partial: the model failed on some of the cases." in drawn({"auc": 0.5}, is_partial=True)
    assert "Partial" not in drawn({"auc": 0.5})


def test_nothing_is_drawn_where_nothing_can_be() -> None:
    assert drawn({"cases": 12, "note": "fine"}, is_partial=True) == ""


def test_a_perfect_curve_follows_the_left_and_the_upper_edge() -> None:
    canvas = [line[5:] for line in drawn({"roc": STEP}, has_unicode=False).splitlines() if line[4:5] == "|"]
    assert set(canvas[0]) == {"*"}
    assert all(line[0] == "*" for line in canvas)
    assert "*" not in "".join(line[1:] for line in canvas[1:])


def test_plain_ascii_holds_nothing_else() -> None:
    metrics = {"größe 日本": 0.5, "x" * 200: 0.25, "roc": STEP, "note": "日本"}
    assert drawn(metrics, has_unicode=False).isascii()


@settings(deadline=None)
@given(METRICS, st.integers(20, 100), st.booleans())
def test_whatever_a_container_wrote_is_drawn_in_harmless_lines_of_the_width(
    metrics: dict[str, Any], width: int, has_unicode: bool
) -> None:
    text = drawn(metrics, width=width, has_unicode=has_unicode, is_partial=True)
    assert printable(text) == text
    assert all(columns(line) <= max(width, 20) for line in text.splitlines())


def test_what_would_paint_the_terminal_is_shown_as_escapes() -> None:
    text = drawn({"\x1b[31mred\u202e": 0.5, "note": "\x9b2J", "a\nb": {"roc": STEP}})
    assert "\\x1b[31mred\\u202e" in text
    assert "\\x9b2J" in text
    assert "a\\nb.roc: ROC curve" in text


def test_numbers_of_any_size_are_shown() -> None:
    text = drawn({"a": sys.float_info.max, "b": -(2**63), "c": 5e-324, "d": 0.5})
    assert all(number in text for number in ("1.79769e+308", str(-(2**63)), "5e-324"))
