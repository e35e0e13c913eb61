"""Where a process's traces go: to the OpenTelemetry collector that the standard variables name, or nowhere."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from medperf_contracts import __version__
from services.kernel import tracing

# https://opentelemetry.io/docs/specs/otel/protocol/exporter/ The exporter itself reads these and the others.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
# A collector that is away must not keep a process from ending within its grace.
LAST_EXPORT_SECONDS = 3.0


@contextmanager
def traces_exported(service: str, environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Record traces for as long as the block runs, and export them by OTLP over HTTP; if a collector is named."""
    if not any(environment.get(name) for name in ENDPOINTS):
        yield
        return
    # Imported by those who export: it is slow, and nobody else needs it.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create(
        {"service.namespace": "medperf", "service.name": f"medperf-{service}", "service.version": __version__}
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    tracing.record_with(provider)
    try:
        yield
    finally:
        tracing.record_with(None)
        ending = threading.Thread(target=provider.shutdown, daemon=True)
        ending.start()
        ending.join(LAST_EXPORT_SECONDS)
