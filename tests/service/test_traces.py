"""One trace from a request through the outbox and the bus to the effect, with and without a collector."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from service import facts
from service.facts import SITE
from service.peer import Peer, envelope_of
from services import trace_export
from services.associations.app import DEFINITION
from services.kernel import tracing
from services.kernel.amqp import AmqpBus
from services.kernel.relay import Relay
from services.kernel.service import Definition
from services.results.app import DEFINITION as RESULTS
from services.trace_export import traces_exported

PATH = "/api/v1/associations"
REQUEST = {"benchmark_id": 1, "dataset_id": 1}
TRACE_ID, CALLERS_SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLERS = f"00-{TRACE_ID}-{CALLERS_SPAN_ID}-01"


class Recorded:
    """The spans that ended, by name."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    def one(self, name: str) -> ReadableSpan:
        found = [span for span in self.exporter.get_finished_spans() if span.name == name]
        assert len(found) == 1, [span.name for span in self.exporter.get_finished_spans()]
        return found[0]


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    recorded = Recorded()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(recorded.exporter))
    tracing.record_with(provider)
    yield recorded
    tracing.record_with(None)
    provider.shutdown()


@pytest.fixture
def associations(start: Callable[[Definition], Peer]) -> Peer:
    peer = start(DEFINITION)
    peer.tell(facts.benchmark())
    peer.tell(facts.dataset())
    return peer


def span_id(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def ask(peer: Peer, **headers: str) -> None:
    assert peer.call("POST", PATH, REQUEST, by=SITE, headers=headers).status_code == 201


def test_a_request_its_events_publishing_and_its_effect_elsewhere_are_one_trace(
    associations: Peer, start: Callable[[Definition], Peer], recorded: Recorded
) -> None:
    results = start(RESULTS)
    recorded.exporter.clear()
    ask(associations, traceparent=CALLERS)
    associations.run(Relay(associations.service.database, results.bus).publish_waiting())
    associations.run(results.service.database.close())  # connections end in the event loop that they began in

    request = recorded.one(f"POST {PATH}")
    publish = recorded.one("publish association.requested.v1")
    handle = recorded.one("handle results.record_association")
    assert [span.kind for span in (request, publish, handle)] == [
        SpanKind.SERVER,
        SpanKind.PRODUCER,
        SpanKind.CONSUMER,
    ]
    for span in (request, publish, handle):
        context = span.get_span_context()
        assert context is not None
        assert f"{context.trace_id:032x}" == TRACE_ID
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == CALLERS_SPAN_ID
    for span in (publish, handle):
        assert span.parent is not None
        assert span.parent.span_id == span_id(request)
    event = associations.events()[0]
    assert event.traceparent == f"00-{TRACE_ID}-{span_id(request):016x}-01"
    assert handle.attributes is not None
    assert handle.attributes["messaging.message.id"] == str(event.id)
    assert handle.attributes["medperf.outcome"] == "handled"


def test_spans_carry_ids_topics_and_outcomes_and_nothing_of_what_was_sent(
    associations: Peer, recorded: Recorded
) -> None:
    ask(associations)
    associations.run(associations.service.relay.publish_waiting())
    associations.tell(facts.dataset(id=5, name="a-site's-own-name"))
    associations.call("POST", f"{PATH}/1/reject", {"reason": "a-reason-of-theirs"}, by=facts.COMMITTEE)
    told = " ".join(json.dumps(dict(span.attributes or {})) for span in recorded.exporter.get_finished_spans())
    names = {name for span in recorded.exporter.get_finished_spans() for name in span.attributes or {}}
    assert names <= {
        "cloudevents.event_id",
        "cloudevents.event_source",
        "cloudevents.event_subject",
        "cloudevents.event_type",
        "error.type",
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "medperf.outcome",
        "messaging.destination.name",
        "messaging.message.id",
        "messaging.operation.name",
        "messaging.operation.type",
        "messaging.system",
    }
    for secret in ("a-site's-own-name", "a-reason-of-theirs", "user20", "chest"):
        assert secret not in told
    assert [span.events for span in recorded.exporter.get_finished_spans() if span.events] == []


def test_an_event_that_the_bus_does_not_take_is_an_error_in_its_trace(
    associations: Peer, recorded: Recorded
) -> None:
    ask(associations)
    no_broker = AmqpBus("amqp://associations:secret@127.0.0.1:1/medperf", name="associations")
    associations.run(Relay(associations.service.database, no_broker).publish_waiting())
    publish = recorded.one("publish association.requested.v1")
    assert publish.status.status_code is StatusCode.ERROR
    assert publish.attributes is not None
    assert publish.attributes["error.type"] == "not_confirmed"


def test_requests_do_not_inherit_each_others_traces(associations: Peer, recorded: Recorded) -> None:
    for _ in range(2):
        associations.call("GET", PATH, by=SITE)
    first, second = (span for span in recorded.exporter.get_finished_spans() if span.name == f"GET {PATH}")
    assert first.parent is second.parent is None
    assert first.get_span_context() is not None
    assert len({span.get_span_context().trace_id for span in (first, second)}) == 2  # type: ignore[union-attr]


def test_what_names_no_parent_begins_a_trace_also_inside_another(recorded: Recorded) -> None:
    with tracing.entered("outer", SpanKind.INTERNAL, parent=CALLERS, attributes={}):
        envelope = envelope_of(facts.dataset())
        tracing.publishing(envelope).end()
        tracing.publishing(envelope.model_copy(update={"traceparent": CALLERS})).end()
    alone, child, _ = recorded.exporter.get_finished_spans()
    assert alone.parent is None
    assert child.parent is not None


# --- without a collector ---


@pytest.mark.parametrize("malformed", ["", "no trace", CALLERS.upper(), f"00-{'0' * 32}-{CALLERS_SPAN_ID}-01"])
def test_without_a_provider_a_trace_has_ids_all_the_same(associations: Peer, malformed: str) -> None:
    with structlog.testing.capture_logs() as lines:
        ask(associations, traceparent=malformed)
        associations.run(associations.bus.publish([event := associations.events()[0]]))
        associations.tell(facts.dataset(id=7))
    assert event.traceparent is not None
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", event.traceparent)
    (request,) = [line for line in lines if line["event"] == "request"]
    assert request["trace_id"] == event.traceparent.split("-")[1]
    deliveries = [line["trace_id"] for line in lines if line["event"] == "delivery"]
    assert all(re.fullmatch("[0-9a-f]{32}", trace_id) for trace_id in deliveries)
    assert tracing.current_traceparent() is None, "a trace ends with its request"


def test_a_delivery_goes_on_with_the_trace_of_its_event(associations: Peer) -> None:
    envelope = envelope_of(facts.dataset(id=8)).model_copy(update={"traceparent": CALLERS})
    with structlog.testing.capture_logs() as lines:
        associations.run(associations.bus.publish([envelope]))
    assert [line["trace_id"] for line in lines if line["event"] == "delivery"] == [TRACE_ID]


# --- with one ---


class Collector(ThreadingHTTPServer):
    """Takes what is exported; a slow one never answers."""

    daemon_threads = True

    def __init__(self, *, is_slow: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.is_slow = is_slow
        self.is_over = threading.Event()
        self.taken: list[tuple[str, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Taking(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.is_slow:
            self.server.is_over.wait(30)
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.taken.append((self.path, body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_request(self, *_: Any) -> None:
        pass  # pytest's output is not the place


@contextmanager
def collector(*, is_slow: bool = False) -> Iterator[Collector]:
    server = Collector(is_slow=is_slow)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.is_over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def export_to(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_traces_go_to_the_collector_that_is_named(associations: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as server:
        export_to(monkeypatch, server.url)
        with traces_exported("associations"):
            ask(associations)
        assert {path for path, _ in server.taken} == {"/v1/traces"}
        sent = b"".join(body for _, body in server.taken)
    for word in (b"medperf-associations", f"POST {PATH}".encode(), b"medperf.outcome"):
        assert word in sent


def test_a_collector_that_hangs_keeps_no_process_from_ending(
    associations: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collector(is_slow=True) as server:
        export_to(monkeypatch, server.url)
        with traces_exported("associations"):
            ask(associations)
            began = time.monotonic()
        assert time.monotonic() - began < trace_export.LAST_EXPORT_SECONDS + 2


def test_nothing_is_exported_and_nothing_of_it_imported_where_no_collector_is_named(
    associations: Peer, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in trace_export.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    threads = threading.active_count()
    with traces_exported("associations"):
        assert threading.active_count() == threads
        ask(associations)
    assert recorded.one(f"POST {PATH}"), "what recorded before still does"


def test_the_kernel_and_the_processes_import_no_sdk() -> None:
    loads = "import sys, services.process; print([name for name in sys.modules if 'opentelemetry.sdk' in name])"
    done = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout
