"""Traces: a request's context, which its events carry and their deliveries go on with; as OpenTelemetry keeps it.

Where no provider records, nothing is made but IDs, for the logs and the events. Spans hold IDs, topics and
outcomes: never names, bodies or an exception's words.

The outbox keeps the context in which an event was recorded, which CloudEvents wants left as it is on the way. So
what publishes it and what handles it are both children of the request, each at every try.
Attributes: https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import (
    NonRecordingSpan,
    NoOpTracer,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from medperf_contracts.envelope import Envelope

_HEADER = "traceparent"
_W3C = TraceContextTextMapPropagator()


class _Recorder:
    tracer: Tracer = NoOpTracer()


_recorder = _Recorder()


def record_with(provider: TracerProvider | None) -> None:
    """From now on spans are this provider's; None: nothing is recorded."""
    _recorder.tracer = NoOpTracer() if provider is None else provider.get_tracer("medperf")


@contextmanager
def entered(
    name: str, kind: SpanKind, *, parent: str | None, attributes: Mapping[str, str | int]
) -> Iterator[Span]:
    """Work that goes on with the trace of `parent`, or begins one, and is the context of all that it does."""
    span = started(name, kind, parent=parent, attributes=attributes)
    with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        yield span


def started(name: str, kind: SpanKind, *, parent: str | None, attributes: Mapping[str, str | int]) -> Span:
    """A span in the trace of `parent`, or of a new trace; whoever asks for it ends it."""
    context = _W3C.extract({_HEADER: parent} if parent else {})
    span = _recorder.tracer.start_span(name, context=context, kind=kind, attributes=attributes)
    return span if span.get_span_context().is_valid else NonRecordingSpan(_new_context())


def fail(span: Span, kind: str) -> None:
    """Say of what kind its failure was."""
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


def publishing(envelope: Envelope) -> Span:
    """One event's way to the bus."""
    return started(
        f"publish {envelope.type}",
        SpanKind.PRODUCER,
        parent=envelope.traceparent,
        attributes={
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.name": envelope.type,
            **_event(envelope),
        },
    )


@contextmanager
def handling(consumer: str, envelope: Envelope) -> Iterator[Span]:
    """One try of an event's effect."""
    attributes = {
        "messaging.operation.name": "handle",
        "messaging.operation.type": "process",
        "messaging.destination.name": consumer,
        **_event(envelope),
    }
    with entered(
        f"handle {consumer}", SpanKind.CONSUMER, parent=envelope.traceparent, attributes=attributes
    ) as span:
        yield span


def current_traceparent() -> str | None:
    """The trace context of the request or delivery at work."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get(_HEADER)


def current_trace_id() -> str | None:
    """The trace's ID alone, as it stands in log lines."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def _event(envelope: Envelope) -> dict[str, str]:
    return {
        # Spans leave a process only where services run apart, and there it is this one.
        "messaging.system": "rabbitmq",
        "messaging.message.id": str(envelope.id),
        "cloudevents.event_id": str(envelope.id),
        "cloudevents.event_type": envelope.type,
        "cloudevents.event_source": envelope.source,
        "cloudevents.event_subject": envelope.subject,
    }


def _new_context() -> SpanContext:
    # Sampled, so that a process that does record goes on with it.
    return SpanContext(
        int(secrets.token_hex(16), 16) or 1,
        int(secrets.token_hex(8), 16) or 1,
        is_remote=False,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
