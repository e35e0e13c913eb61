"""A result's page: what stands in it, and that nothing in it runs or comes from outside."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medperf import safe_yaml
from medperf.drawings import CURVES_MOST, VALUES_MOST
from medperf.evaluation import Evaluation
from medperf.report_page import MODELS_MOST, comparable, report_page
from medperf.results import LocalResult, Submission

HOSTILE = (
    "</title></style><script src=//evil.example/x.js>alert(1)</script><img src=x onerror='a'>\"&amp;\x1b[31m\u202e"
)
ROC = {"fpr": [0.0, 0.2, 1.0], "tpr": [0.0, 0.9, 1.0]}
VOID = {"meta"}
ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "main", "footer", "section", "h1", "h2", "p", "div"),
    *(
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "data",
        "span",
        "strong",
        "code",
        "time",
        "ul",
        "li",
    ),
    *("figure", "figcaption", "details", "summary", "pre", "svg", "desc", "rect", "path", "text", "polyline"),
}


@dataclass
class Page(HTMLParser):
    """A page read strictly: each element that is opened is closed, in order."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, [])
        if tag not in VOID:
            self.open.append(tag)
            self.texts[tag].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def result(model_id: int = 4, metrics: dict[str, Any] | None = None, **changes: Any) -> LocalResult:
    values = {
        "dataset_hash": "a" * 64,
        "model_hash": f"{model_id:064x}",
        "metrics_hash": "e" * 64,
        "metrics": {"auc": 0.9} if metrics is None else metrics,
        "is_partial": False,
        "engine": "sandbox",
        "engine_reason": "Docker does not answer; you agreed",
        "started_at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        "finished_at": datetime(2026, 1, 2, 4, 5, 7, tzinfo=UTC),
    }
    evaluation = Evaluation.model_validate({**values, **changes})
    return LocalResult(
        name=f"b1m{model_id}d1", benchmark_id=1, model_id=model_id, dataset_id=1, evaluation=evaluation
    )


def written(one: LocalResult, *beside: LocalResult, names: dict[int, str] | None = None) -> str:
    return report_page(one, beside, names=names or {}, not_comparable=[])


def read(text: str) -> Page:
    """The page, checked: well formed, of known elements, without anything that runs or is loaded."""
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert {tag for tag, _ in page.elements} <= ELEMENTS
    for tag, attributes in page.elements:
        loads = {"src", "href", "style", "srcset", "action", "background", "xlink:href"}
        assert not loads & attributes.keys(), tag
        assert not [name for name in attributes if name.startswith("on")], tag
        # An address may stand in a text or a value: nothing else names one.
        assert not [name for name, value in attributes.items() if name != "value" and "//" in (value or "")], tag
    (style,) = page.texts["style"]
    assert not re.search(r"url\(|@import|expression|//", style)
    return page


# What is in it


def test_every_value_stands_in_the_page() -> None:
    metrics = {"auc": 0.8888888888888888, "f1": None, "n": {"cases": 12, "big": 1e300}, "ok": True, "why": "x"}
    page = read(written(result(metrics={**metrics, "list": [0.1, 0.25]})))
    assert [one["value"] for one in page.all("data")] == [
        *("0.8888888888888888", "null", "12", "1e+300", "true", "x", "a list of 2")
    ]
    rows = [one["scope"] for one in page.all("th")].count("row")
    assert rows == 7 + 1 + 3
    (recorded,) = page.texts["pre"]
    assert safe_yaml.load(recorded, what="the metrics") == {**metrics, "list": [0.1, 0.25]}


def test_hashes_times_and_the_engine_with_its_reason_stand_in_the_page() -> None:
    one = result(is_partial=True)
    page = read(written(one))
    assert {"a" * 64, "e" * 64, one.evaluation.model_hash, "b1m4d1"} == set(page.texts["code"])
    assert page.all("time") == [{"datetime": "2026-01-02T03:04:00Z"}]
    (body,) = page.texts["body"]
    assert all(text in body for text in ("sandbox", "Docker does not answer; you agreed", "1 h 1 min 7 s"))
    assert "Partial: the model failed on some of the cases" in body


def test_a_whole_result_is_not_called_partial() -> None:
    assert "partial" not in read(written(result())).texts["body"][0].lower()


def test_a_submitted_result_says_under_which_id() -> None:
    sent = Submission(result_id=31, is_partial=False)
    one = result().model_copy(update={"submissions": (sent,)})
    assert "the server has it as result 31" in read(written(one)).texts["main"][0]
    assert "Not submitted" in read(written(result())).texts["main"][0]


def test_models_stand_side_by_side_under_their_names() -> None:
    other = result(2, {"auc": 0.7, "only_here": 0.1}, is_partial=True)
    page = read(written(result(), other, names={4: "second", 2: "reference"}))
    heads = [text for text in page.texts["th"] if text.startswith("Model 2")]
    assert heads[0] == "Model 2 (reference) partial"
    assert [one["value"] for one in page.all("data")] == ["0.9", "0.7", "0.1"]
    assert "not given" in page.texts["main"][0]


def test_results_of_other_data_or_metrics_are_not_put_beside_one() -> None:
    same, data, metrics = result(2), result(5, dataset_hash="b" * 64), result(6, metrics_hash="f" * 64)
    elsewhere = result(7).model_copy(update={"benchmark_id": 2})
    own, rest = comparable(result(), [result(), same, data, metrics, elsewhere])
    assert own == [same]
    assert rest == ["b1m5d1", "b1m6d1"]
    page = read(report_page(result(), own, names={}, not_comparable=rest))
    assert "not beside these: b1m5d1, b1m6d1." in page.texts["main"][0]


def test_a_bar_is_as_long_as_its_number_and_a_curve_has_its_points() -> None:
    page = read(written(result(metrics={"auc": 0.25, "roc": ROC})))
    assert [one["width"] for one in page.all("rect") if one["class"] == "full"] == ["25.00"]
    curve = page.all("polyline")[0]
    assert curve["points"] == "48.0,312.0 108.0,42.0 348.0,12.0"


def test_lines_of_a_chart_differ_in_more_than_colour() -> None:
    others = [result(number, {"roc": ROC}) for number in range(5, 4 + MODELS_MOST)]
    lines = read(written(result(metrics={"roc": ROC}), *others)).all("polyline")
    looks = [(one["class"], one.get("stroke-dasharray")) for one in lines[:MODELS_MOST]]
    assert len(set(looks)) == MODELS_MOST
    assert all(one[1] != other[1] for one, other in pairwise(looks))


def test_the_page_can_be_read_aloud() -> None:
    page = read(written(result(metrics={"auc": 0.9, "roc": ROC}), result(2)))
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("caption")) == len(page.all("table")) == 3
    assert all(one.get("scope") in ("row", "col") for one in page.all("th"))
    pictures = [one for one in page.all("svg") if one.get("role") == "img"]
    named = {attributes.get("id") for _, attributes in page.elements}
    assert [set((one["aria-labelledby"] or "").split()) <= named for one in pictures] == [True]
    assert all(one.get("aria-hidden") == "true" for one in page.all("svg") if one not in pictures)


# What it keeps out


def test_the_policy_allows_the_pages_own_style_and_nothing_else() -> None:
    page = read(written(result()))
    policies = [one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    (style,) = page.texts["style"]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policies == [f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"]


@pytest.mark.parametrize("place", ["key", "value", "curve", "engine", "reason", "name"])
def test_text_of_others_is_text_wherever_it_stands(place: str) -> None:
    metrics: dict[str, Any] = {"auc": 0.5, "roc": ROC}
    if place == "key":
        metrics = {HOSTILE: 0.5}
    elif place == "value":
        metrics = {"note": HOSTILE}
    elif place == "curve":
        metrics = {HOSTILE: ROC}
    changes = {"engine": {"engine": HOSTILE}, "reason": {"engine_reason": HOSTILE}}.get(place, {})
    text = written(result(metrics=metrics, **changes), names={4: HOSTILE} if place == "name" else {})
    page = read(text)
    assert "<script" not in text
    assert "</title></style><script src=//evil" in page.texts["html"][0]
    assert "\x1b" not in text
    assert "\u202e" not in text


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=12),
        st.recursive(
            st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_a_container_wrote_the_page_is_well_formed(metrics: dict[str, Any]) -> None:
    assert read(written(result(metrics=metrics))).texts["pre"]


def test_the_same_result_gives_the_same_bytes() -> None:
    assert written(result(), result(2)) == written(result(), result(2))


def test_models_of_many_metrics_of_their_own_stay_within_a_page() -> None:
    others = [
        result(
            number,
            {f"m{number}.{place}": 0.5 for place in range(90)} | {f"c{number}.{place}": ROC for place in range(4)},
        )
        for number in range(5, 10)
    ]
    page = read(written(result(), *others))
    rows = {text for text in page.texts["th"] if text == "auc" or text.startswith("m")}
    assert len(rows) == VALUES_MOST
    assert len(page.all("figure")) == CURVES_MOST
    left_out = 1 + 5 * 94 - VALUES_MOST - CURVES_MOST
    assert f"{left_out} more metrics or curves" in page.texts["main"][0]


def test_thousands_of_metrics_points_and_models_stay_within_a_page() -> None:
    rates = [number / 9_999 for number in range(10_000)]
    metrics = {f"m{number}": 0.5 for number in range(3000)} | {"roc": {"fpr": rates, "tpr": rates}}
    text = written(result(metrics=metrics), *(result(number) for number in range(5, 205)))
    page = read(text)
    assert f"{3001 - VALUES_MOST:,} more metrics or curves" in page.texts["main"][0]
    assert f"{201 - MODELS_MOST:,} more models have results" in page.texts["main"][0]
    assert len(text) < 1_500_000
