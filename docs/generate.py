"""Writes what is made from the code: OpenAPI, events, errors, guarantees, the broker. A test says when it is old.

Run it as `make docs`, or `python docs/generate.py`.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from joserfc.jwk import KeySet

from medperf_contracts import events
from medperf_contracts.associations import AssociationState, PartKind
from medperf_contracts.envelope import Envelope
from medperf_contracts.events import EVERY_EVENT, Event
from medperf_contracts.values import Decision, State
from services.associations import commands as associations
from services.composition import DEFINITIONS
from services.gateway import nginx
from services.kernel import topology
from services.kernel.bus import EmbeddedBus
from services.kernel.errors import AppError, every_error
from services.kernel.http import build_app
from services.kernel.service import Definition, Service
from services.kernel.settings import Settings
from services.registry import commands as registry
from services.results import commands as results

DOCS = Path(__file__).resolve().parent
MADE_BY = "<!-- Made by docs/generate.py: change the code, then run it. -->"

# Which commands tell of an event. A test reads from a server's outboxes that each service does publish these.
PUBLISHED_BY: dict[type[Event], tuple[Callable[..., Any], ...]] = {
    events.ContainerRegistered: (registry.register_container,),
    events.ContainerMadeOperational: (registry.set_container_operational,),
    events.ContainerUpdated: (registry.update_container,),
    events.BenchmarkRegistered: (registry.register_benchmark,),
    events.BenchmarkMadeOperational: (registry.set_benchmark_operational,),
    events.BenchmarkApproved: (registry.approve_benchmark,),
    events.BenchmarkRejected: (registry.reject_benchmark,),
    events.BenchmarkUpdated: (registry.update_benchmark,),
    events.DatasetRegistered: (registry.register_dataset,),
    events.DatasetUpdated: (registry.update_dataset,),
    events.AssociationRequested: (associations.request,),
    # A request by someone who owns both sides is approved at once.
    events.AssociationApproved: (associations.approve, associations.request),
    events.AssociationRejected: (associations.reject,),
    events.AssociationWithdrawn: (associations.withdraw,),
    events.AssociationPrioritized: (associations.set_priority,),
    events.ResultSubmitted: (results.submit,),
}

_FACTS: dict[str, dict[str, Any]] = {
    "container": {
        "id": 4,
        "name": "chest-xray-second",
        "owner_id": 3,
        "hash": "4" * 64,
        "state": State.OPERATION,
        "is_valid": True,
    },
    "benchmark": {
        "id": 1,
        "name": "chest-xray-tutorial",
        "owner_id": 2,
        "hash": "d" * 64,
        "state": State.OPERATION,
        "approval": Decision.PENDING,
        "is_valid": True,
        "preparation_id": 1,
        "preparation_hash": "a" * 64,
        "reference_model_id": 2,
        "metrics_id": 3,
        "metrics_hash": "c" * 64,
        "public_scores": False,
    },
    "dataset": {
        "id": 7,
        "name": "mytestdata",
        "owner_id": 4,
        "data_hash": "e" * 64,
        "preparation_hash": "a" * 64,
        "state": State.OPERATION,
        "is_valid": True,
    },
    "association": {
        "id": 12,
        "benchmark_id": 1,
        "benchmark_name": "chest-xray-tutorial",
        "benchmark_owner_id": 2,
        "part_kind": PartKind.DATASET,
        "part_id": 7,
        "part_name": "mytestdata",
        "part_owner_id": 4,
        "requested_by": 4,
        "decided_by": 2,
        "priority": 0,
    },
    "result": {
        "id": 9,
        "benchmark_id": 1,
        "benchmark_name": "chest-xray-tutorial",
        "benchmark_owner_id": 2,
        "model_id": 4,
        "model_name": "chest-xray-second",
        "model_owner_id": 3,
        "dataset_id": 7,
        "dataset_owner_id": 4,
        "is_partial": False,
    },
}
_DEVELOPMENT = {"state": State.DEVELOPMENT}
_APPROVED, _REJECTED = {"approval": Decision.APPROVED}, {"approval": Decision.REJECTED}
_CHANGED: dict[type[Event], dict[str, Any]] = {
    events.ContainerRegistered: _DEVELOPMENT,
    events.ContainerUpdated: {"is_valid": False},
    events.BenchmarkRegistered: _DEVELOPMENT,
    events.BenchmarkApproved: _APPROVED,
    events.BenchmarkRejected: _REJECTED,
    events.BenchmarkUpdated: {**_APPROVED, "is_valid": False},
    events.DatasetUpdated: {"is_valid": False},
    events.AssociationRequested: {"state": AssociationState.PENDING, "decided_by": None},
    events.AssociationApproved: {"state": AssociationState.APPROVED},
    events.AssociationRejected: {"state": AssociationState.REJECTED},
    events.AssociationWithdrawn: {"state": AssociationState.WITHDRAWN, "decided_by": 4},
    events.AssociationPrioritized: {
        "part_kind": PartKind.MODEL,
        "part_id": 4,
        "part_name": "chest-xray-second",
        "part_owner_id": 3,
        "state": AssociationState.APPROVED,
        "requested_by": 3,
        "priority": 10,
    },
}


def documents() -> dict[str, str]:
    """Every made document, by its path under `docs/`."""
    made = {f"openapi/{definition.name}.json": _json(_openapi(definition)) for definition in DEFINITIONS}
    made |= {f"events/{event.TOPIC}.json": _json(_event(event)) for event in EVERY_EVENT}
    made |= {f"../deploy/nginx/{name}": text for name, text in nginx.deployments().items()}
    made |= {"../deploy/rabbitmq/definitions.json": _json(topology.definitions(DEFINITIONS))}
    security = runpy.run_path(str(DOCS / "guarantees.py"))["page"]((DOCS / "security.md").read_text())
    return made | {"events.md": _events_table(), "errors.md": _errors_table(), "security.md": security}


def _openapi(definition: Definition) -> dict[str, Any]:
    settings = Settings(
        database_url="sqlite+aiosqlite://",
        signing_keys_file=DOCS / "none",
        public_keys_file=DOCS / "none",
        is_embedded=False,
        is_on_loopback=False,
        operator_token_hash=None,
    )
    return build_app(Service(definition, settings, EmbeddedBus(), public_keys=lambda: KeySet([]))).openapi()


def _event(event: type[Event]) -> dict[str, Any]:
    return {
        "topic": event.TOPIC,
        "published_by": [_name(command) for command in PUBLISHED_BY[event]],
        "consumed_by": _consumers(event),
        "data_schema": event.model_json_schema(),
        "example": json.loads(example(event).model_dump_json(exclude_none=True)),
    }


def example(event: type[Event]) -> Envelope:
    """One event of a class as it travels; always the same one."""
    fact = event.model_validate(_FACTS[event.KIND] | _CHANGED.get(event, {}))
    return Envelope(
        id=UUID(int=EVERY_EVENT.index(event) + 1),
        source=f"/medperf/{_service(PUBLISHED_BY[event][0])}",
        type=event.TOPIC,
        subject=f"{event.KIND}/{fact.id}",
        time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        aggregateversion=1,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        data=fact.model_dump(mode="json"),
    )


def _events_table() -> str:
    rows = [
        (
            f"[`{event.TOPIC}`](events/{event.TOPIC}.json)",
            ", ".join(f"`{_name(command)}`" for command in PUBLISHED_BY[event]),
            ", ".join(f"`{name}`" for name in _consumers(event)),
        )
        for event in EVERY_EVENT
    ]
    return f"""# Events
{MADE_BY}

What the services tell each other. An event is a row in the transaction of the change that it tells of, and
travels as [CloudEvents 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md) in structured
JSON. It carries, whole, what other services need of its thing after the change; never scores, statistics,
descriptions or reasons. An optional field added keeps v1; anything else is a v2, published beside it. Each topic's
file holds the schema of its data and an example. A consumer's name is its queue's name, and the key of its inbox.

{_table(("topic", "published by", "consumed by"), rows)}"""


def _errors_table() -> str:
    rows = [
        (f"`{error.code}`", str(error.status), _service(error), error.hint.replace("|", "\\|"))
        for error in sorted(our_errors(), key=lambda error: (error.status, error.code, _service(error)))
    ]
    return f"""# Error codes
{MADE_BY}

A refusal is a problem document ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457), `application/problem+json`):
`code` is for programs and never changes, `detail` says what happened, `hint` what to do next; `existing` names the
thing that is there already, `fields` say for `invalid_input` which field and why. With 429, 502, 503, 504 and
`in_progress` the header `Retry-After` says when to send the same request again, with the same `Idempotency-Key`.

{_table(("code", "status", "from", "what to do"), rows)}"""


def our_errors() -> list[type[AppError]]:
    """Every refusal of every service."""
    return [error for error in every_error() if error.__module__.startswith("services.")]


def _consumers(event: type[Event]) -> list[str]:
    return [
        consumer.name
        for definition in DEFINITIONS
        for consumer in definition.consumers
        if event in consumer.events
    ]


def _name(command: Callable[..., Any]) -> str:
    return f"{_service(command)}.{command.__name__}"


def _service(thing: Callable[..., Any]) -> str:
    return thing.__module__.split(".")[1]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


def left_over(made: dict[str, str]) -> list[Path]:
    """Files that an earlier run made and this one does not."""
    there = [*(DOCS / "openapi").glob("*"), *(DOCS / "events").glob("*")]
    return [path for path in there if path.relative_to(DOCS).as_posix() not in made]


def main() -> None:
    """Write what changed."""
    made = documents()
    for path in left_over(made):
        path.unlink()
        sys.stdout.write(f"removed {path.relative_to(DOCS)}\n")
    for name, text in made.items():
        path = DOCS / name
        if not path.is_file() or path.read_text() != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            sys.stdout.write(f"wrote {name}\n")


if __name__ == "__main__":
    main()
