"""One result as a page that stands alone: no script, nothing from outside, every text escaped, the same bytes for
the same result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from html import escape

from medperf import safe_yaml
from medperf.drawings import CURVES_MOST, VALUES_MOST, Drawables, Value, drawables, one_line
from medperf.page_style import STYLE, STYLE_SOURCE
from medperf.results import LocalResult
from medperf.roc_chart import Line, roc_chart
from medperf.terminal import printable

MODELS_MOST = 12
# What an A4 sheet has room for beside the metrics' names.
_COLUMNS_MOST = 4


def report_page(
    result: LocalResult,
    beside: Sequence[LocalResult],
    *,
    names: Mapping[int, str | None],
    not_comparable: Sequence[str],
) -> str:
    """The page of a result, with other models' results on the same data by the same metrics `beside` it.

    `names` are what models are called, by their server UIDs, None where that is not known; `not_comparable` are
    the results of the same benchmark and dataset that are of other data or other metrics.
    """
    shown = [result, *beside][:MODELS_MOST]
    titles = [_title(one, names) for one in shown]
    found = [drawables(one.evaluation.metrics) for one in shown]
    title = f"{titles[0]} on dataset {result.dataset_id} in benchmark {result.benchmark_id}"
    parts = [
        _summary(result),
        _metrics(titles, found, shown),
        _curves(titles, found),
        _notes(found, len(beside) + 1 - len(shown), not_comparable),
        _runs(titles, shown),
        _hashes(titles, shown),
        _as_written(result),
    ]
    return _document(title, parts)


def comparable(result: LocalResult, others: Iterable[LocalResult]) -> tuple[list[LocalResult], list[str]]:
    """The benchmark's other results on the dataset: those of the same data and metrics; the names of the rest."""
    same, rest = [], []
    for other in others:
        if other.name == result.name or (other.benchmark_id, other.dataset_id) != (
            result.benchmark_id,
            result.dataset_id,
        ):
            continue
        if _measured(other) == _measured(result):
            same.append(other)
        else:
            rest.append(other.name)
    return same, rest


def _measured(result: LocalResult) -> tuple[str, str]:
    return result.evaluation.dataset_hash, result.evaluation.metrics_hash


def _document(title: str, parts: Iterable[str]) -> str:
    policy = f"default-src 'none'; style-src {STYLE_SOURCE}; base-uri 'none'; form-action 'none'"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="referrer" content="no-referrer">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            f"<h1>{_text(title)}</h1>",
            *(part for part in parts if part),
            "</main>",
            "<footer><p>Made by MedPerf from the records on one machine. The page loads nothing and sends nothing;"
            " whoever is given it sees these scores.</p></footer>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _summary(result: LocalResult) -> str:
    words = (
        f"Submitted: the server has it as result {result.submitted_id}."
        if result.submitted_id is not None
        else "Not submitted from this machine."
    )
    partial = (
        '<p class="partial"><strong>Partial:</strong> the model failed on some of the cases, and the metrics are'
        " of the others.</p>\n"
        if result.evaluation.is_partial
        else ""
    )
    return f"{partial}<p>Local result UID: <code>{_text(result.name)}</code>. {words}</p>"


def _metrics(titles: Sequence[str], found: Sequence[Drawables], shown: Sequence[LocalResult]) -> str:
    by_model = [{value.path: value for value in one.values} for one in found]
    paths = _metric_paths(found)[:VALUES_MOST]
    if not paths:
        return ""
    tables = []
    for start in range(0, len(shown), _COLUMNS_MOST):
        models = range(start, min(start + _COLUMNS_MOST, len(shown)))
        heads = [_head(titles[place], is_partial=shown[place].evaluation.is_partial) for place in models]
        rows = [[path, *(_cell(by_model[place].get(path)) for place in models)] for path in paths]
        which = f", models {start + 1} to {models[-1] + 1}" if len(shown) > _COLUMNS_MOST else ""
        caption = f"Each metric of each model{which}. A bar is a number from 0 to 1."
        tables.append(_table(caption, ["Metric", *heads], rows, f"metrics of{len(models)}"))
    return _section("Metrics", *tables)


def _metric_paths(found: Sequence[Drawables]) -> list[str]:
    return list(dict.fromkeys(value.path for one in found for value in one.values))


def _curve_paths(found: Sequence[Drawables]) -> list[str]:
    return list(dict.fromkeys(curve.path for one in found for curve in one.curves))


def _head(title: str, *, is_partial: bool) -> str:
    return _text(title) + (' <span class="partial">partial</span>' if is_partial else "")


def _cell(value: Value | None) -> str:
    if value is None:
        return '<span class="quiet">not given</span>'
    shown = f'<data value="{_text(value.exact)}">{_text(value.shown)}</data>'
    if value.share is None:
        return shown
    width = f"{value.share * 100:.2f}"
    return (
        f'{shown}<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="6"/><rect class="full" width="{width}" height="6"/></svg>'
    )


def _curves(titles: Sequence[str], found: Sequence[Drawables]) -> str:
    paths = _curve_paths(found)[:CURVES_MOST]
    figures = []
    for number, path in enumerate(paths):
        lines = [
            Line(_text(title), place, curve)
            for place, (title, one) in enumerate(zip(titles, found, strict=True))
            for curve in one.curves
            if curve.path == path
        ]
        figures.append(roc_chart(f"roc{number}", _text(path), lines))
    return _section("ROC curves", *figures) if figures else ""


def _notes(found: Sequence[Drawables], models_left_out: int, not_comparable: Sequence[str]) -> str:
    notes = []
    left_out = sum(one.left_out for one in found)
    left_out += max(0, len(_metric_paths(found)) - VALUES_MOST) + max(0, len(_curve_paths(found)) - CURVES_MOST)
    if left_out:
        notes.append(f"{left_out:,} more metrics or curves of these models are beyond what a page can show.")
    if models_left_out:
        notes.append(f"{models_left_out:,} more models have results on this machine that are not shown here.")
    if not_comparable:
        names = ", ".join(_text(name) for name in not_comparable[:MODELS_MOST])
        more = f" and {len(not_comparable) - MODELS_MOST:,} more" if len(not_comparable) > MODELS_MOST else ""
        notes.append(f"Of other data or other metrics, so not beside these: {names}{more}.")
    return "\n".join(f"<p>{note}</p>" for note in notes)


def _runs(titles: Sequence[str], shown: Sequence[LocalResult]) -> str:
    rows = []
    for title, one in zip(titles, shown, strict=True):
        ran = one.evaluation
        reason = one_line(ran.engine_reason) or "not recorded"
        extent = "partial" if ran.is_partial else "whole"
        took = _duration(ran.finished_at - ran.started_at)
        rows.append([title, _text(one_line(ran.engine)), _text(reason), _instant(ran.started_at), took, extent])
    heads = ["Model", "Engine", "Why this one", "Started", "Took", "Result"]
    caption = "What ran each model and the metrics, and when. Times are UTC."
    return _section("How it was run", _table(caption, heads, rows, "runs"))


def _hashes(titles: Sequence[str], shown: Sequence[LocalResult]) -> str:
    ran = shown[0].evaluation
    rows = [
        ["Prepared data", "BLAKE3", _hash(ran.dataset_hash)],
        ["Metrics container", "SHA-256", _hash(ran.metrics_hash)],
    ]
    rows += [
        [title, "SHA-256", _hash(one.evaluation.model_hash)] for title, one in zip(titles, shown, strict=True)
    ]
    caption = "By these hashes anybody can check which data, models and metrics the numbers are of."
    return _section("What was run", _table(caption, ["Part", "Hash", "Value"], rows, "hashes"))


def _as_written(result: LocalResult) -> str:
    written = printable(safe_yaml.dump(result.evaluation.metrics))
    return (
        "<details>\n<summary>All metrics as they were recorded</summary>\n"
        f'<pre tabindex="0">{escape(written)}</pre>\n</details>'
    )


def _section(heading: str, *parts: str) -> str:
    return "\n".join(["<section>", f"<h2>{heading}</h2>", *parts, "</section>"])


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str) -> str:
    """A table; each row's first cell is plain text and its header, the other cells are HTML."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in heads)
    body = [
        f'<tr><th scope="row">{_text(first)}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        for first, *cells in rows
    ]
    return "\n".join(
        [
            f'<div class="wide" role="region" aria-label="{_text(caption)}" tabindex="0">',
            f'<table class="{kind}">',
            f"<caption>{_text(caption)}</caption>",
            f"<thead><tr>{head}</tr></thead>",
            "<tbody>",
            *body,
            "</tbody>",
            "</table></div>",
        ]
    )


def _title(result: LocalResult, names: Mapping[int, str | None]) -> str:
    name = names.get(result.model_id)
    return f"Model {result.model_id}" + (f" ({one_line(name)})" if name else "")


def _hash(value: str) -> str:
    return f"<code>{_text(one_line(value))}</code>"


def _instant(moment: datetime) -> str:
    there = moment.astimezone(UTC)
    return f'<time datetime="{there:%Y-%m-%dT%H:%M:%SZ}">{there:%Y-%m-%d %H:%M:%S}</time>'


def _duration(took: timedelta) -> str:
    seconds = max(0, round(took.total_seconds()))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] * bool(hours) + [f"{minutes} min"] * bool(hours or minutes) + [f"{seconds} s"]
    return " ".join(parts)


def _text(text: str) -> str:
    """Text as it stands in the page, in one harmless line."""
    return escape(printable(text).replace("\n", "\\n"))
