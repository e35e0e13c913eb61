"""Dashboard, alert rules and operator's table name what the processes show; the rules do what they say."""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.samples import Sample

from servers.found import first, named, program
from service.peer import Peer
from services.composition import DEFINITIONS
from services.kernel import metrics
from services.kernel.amqp import AmqpBus
from services.kernel.backlog import Backlog

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy" / "dashboards" / "medperf.json"
RULES = ROOT / "deploy" / "alerts" / "medperf.rules.yaml"
RULES_TEST = ROOT / "deploy" / "alerts" / "medperf.rules.test.yaml"
OPERATING = ROOT / "docs" / "operating.md"
PROMTOOL = "MEDPERF_TEST_PROMTOOL"

METRICS = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
# Prometheus adds these to everything that it scrapes.
SCRAPED = {"job", "instance"}
_METRIC = re.compile(r"\b(medperf_\w+|process_\w+|python_\w+|up)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPED = re.compile(r"\b(?:by|on|group_left|without)\s*\(([^)]*)\)")
# What else may stand in a query: functions, operators, units.
_WORD = re.compile(r"[A-Za-z_]\w*")
_KNOWN_WORDS = {
    *("sum", "max", "min", "count", "topk", "rate", "increase", "histogram_quantile", "absent"),
    *("by", "on", "group_left", "unless", "or", "and", "m", "h", "s"),
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Sample]]:
    """Every sample, by name, that processes of every service show once each has been asked once."""
    for definition in DEFINITIONS:
        folder = tmp_path_factory.mktemp(definition.name)
        peer = Peer(definition, folder, f"sqlite+aiosqlite:///{folder / 'service'}.db")
        bus = AmqpBus("amqp://127.0.0.1:1/medperf", name=definition.name)
        bus.bind(peer.service.inbox.queues())
        peer.run(Backlog(peer.service.database, [consumer.name for consumer in definition.consumers]).refresh())
        peer.call("GET", "/api/v1/associations" if definition.name == "associations" else "/nothing")
        peer.close()
    # As the first of each process and wait would.
    metrics.BUILD.labels("results", "run", "1")
    metrics.BUILD.labels("results", "work", "1")
    metrics.SEEN_WAIT_SECONDS.labels("results")
    for consumer in (consumer.name for definition in DEFINITIONS for consumer in definition.consumers):
        metrics.EVENT_LAG_SECONDS.labels(consumer)
        metrics.INBOX_ATTEMPT_SECONDS.labels(consumer)
    samples = defaultdict(list)
    for family in REGISTRY.collect():
        for sample in family.samples:
            samples[sample.name].append(sample)
    return samples


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus's own tool, by name, of PATH, or of Debian's package."""
    return first(
        "promtool", PROMTOOL, [lambda: Path(named(PROMTOOL)), lambda: program("promtool", package="prometheus")]
    )


def run(*argv: str | Path, cwd: Path = ROOT) -> None:
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Each query, and where it stands."""
    yield from ((rule["alert"], rule["expr"]) for rule in rules())
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")


def misnamed(query: str, shown: dict[str, list[Sample]]) -> list[str]:
    """What the query names and no process shows: metrics, labels, and labels' values."""
    wrong: list[str] = []
    all_labels = set(SCRAPED)
    for name, matchers in _METRIC.findall(query):
        samples = shown.get(name)
        if not samples:
            wrong.append(name)
            continue
        labels = {label for sample in samples for label in sample.labels}
        all_labels |= labels
        for label, operator, value in _MATCHER.findall(matchers):
            if label not in labels | SCRAPED:
                wrong.append(f"{name}{{{label}}}")
            # Endpoints, statuses and codes come with the requests; the rest is there from the start.
            elif label in ("outcome", "state", "direction", "process") and value:
                there = {sample.labels[label] for sample in samples}
                wrong += [f"{name}{{{label}{operator}{each}}}" for each in value.split("|") if each not in there]
    for group in _GROUPED.findall(query):
        wrong += [label for label in re.split(r"[,\s]+", group.strip()) if label not in all_labels]
    bare = _GROUPED.sub(" ", _METRIC.sub(" ", query))
    return wrong + [word for word in _WORD.findall(bare) if word not in _KNOWN_WORDS]


def test_every_query_names_what_a_process_shows(shown: dict[str, list[Sample]]) -> None:
    found = {where: wrong for where, query in queries() if (wrong := misnamed(query, shown))}
    assert found == {}
    assert len(dict(queries())) >= 25


@pytest.mark.parametrize(
    "query",
    [
        "sum by (service) (medperf_outbox_event)",
        "sum by (queue) (medperf_outbox_events)",
        'medperf_outbox_events{consumer="x"}',
        'medperf_outbox_events{state="stuck"}',
        'rate(medperf_relay_batches_total{outcome=~"failed|lost"}[5m])',
        "rate(outbox_events[5m])",
        "medperf_dead_letters * on (jobs) medperf_build_info",
    ],
)
def test_a_name_that_no_process_shows_is_found(query: str, shown: dict[str, list[Sample]]) -> None:
    assert misnamed(query, shown)


def test_every_metric_has_a_panel(shown: dict[str, list[Sample]]) -> None:
    asked = {name for _, query in queries() for name, _ in _METRIC.findall(query)}
    kinds = ("", "_total", "_bucket")
    own = {family.name for family in REGISTRY.collect() if family.name.startswith("medperf_")}
    assert {name for name in own if not any(f"{name}{kind}" in asked for kind in kinds)} == set()


def test_the_operators_table_is_what_the_processes_show() -> None:
    said = {
        name: (kind, frozenset(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(
            r"^\| `(medperf_\w+)` \| (\w+) \| ([^|]*) \|", OPERATING.read_text(), re.M
        )
    }
    there = {
        family.name + ("_total" if family.type == "counter" else ""): (family.type, frozenset(metric._labelnames))
        for metric in METRICS
        for family in metric.describe()
    }
    assert said == there


def test_names_end_with_their_unit_and_labels_are_few() -> None:
    for metric in METRICS:
        (family,) = metric.describe()
        if family.type == "histogram":
            assert family.name.endswith("_seconds"), family.name
        assert set(metric._labelnames) <= {
            *("service", "process", "version", "endpoint", "status", "code"),
            *("consumer", "outcome", "state", "direction"),
        }


def test_every_alert_says_what_happened_and_leads_to_what_to_do() -> None:
    headings = re.findall(r"^#+ (.*)$", OPERATING.read_text(), re.M)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for rule in rules():
        file, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert ROOT / file == OPERATING
        assert anchor in anchors, rule["alert"]
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_every_alert_is_tried_both_ways() -> None:
    tried = [case for test in yaml.safe_load(RULES_TEST.read_text())["tests"] for case in test["alert_rule_test"]]
    alerts = {rule["alert"] for rule in rules()}
    assert {case["alertname"] for case in tried if case["exp_alerts"]} == alerts
    assert {case["alertname"] for case in tried if not case["exp_alerts"]} == alerts


def test_the_rules_do_what_their_tests_say(promtool: Path) -> None:
    run(promtool, "check", "rules", RULES)
    run(promtool, "test", "rules", RULES_TEST.name, cwd=RULES_TEST.parent)


def test_every_query_of_the_dashboard_is_one(promtool: Path, tmp_path: Path) -> None:
    recorded = [
        {"record": f"panel{number}", "expr": query.replace("$service", "results")}
        for number, (_, query) in enumerate(queries())
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    run(promtool, "check", "rules", tmp_path / "rules.yaml")


def test_panels_do_not_cover_each_other_and_have_ids_of_their_own() -> None:
    whole = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in whole}) == len(whole)
    cells = [
        (x, y)
        for panel in whole
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert all(panel["description"] for panel in panels())
