"""The events: their kept form, who tells them, and what they never carry."""

from __future__ import annotations

import json
import re
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from contract.cases import CASES
from contract.conftest import DOCS
from contract.whole import SECRET, Whole
from medperf_contracts.envelope import Envelope
from medperf_contracts.events import EVERY_EVENT, Event
from service.peer import parked
from services.composition import DEFINITIONS

pytestmark = pytest.mark.xdist_group("events")
BY_TOPIC = {event.TOPIC: event for event in EVERY_EVENT}
# The API hides these from some callers, so an event, which spreads to every service, has none of them.
HIDDEN = {
    "scores",
    "metrics",
    "statistics",
    "description",
    "reason",
    "summary",
    "location",
    "manifest",
    "parameters",
    "metadata",
    "detail",
    "password",
}


@pytest.fixture(scope="module")
def told(whole: Whole) -> dict[str, list[Envelope]]:
    """What each service told of, once every command succeeded for somebody; its hidden texts are all `SECRET`."""
    for case in CASES:
        call = case.make(whole)
        method = case.endpoint.partition(" ")[0]
        response = whole.ask(case.someone_admitted(), method, call.path, call.body, headers=call.headers)
        assert response.status_code == case.success, f"{case.name}: {response.text}"
        whole.settle()
    return {name: whole.events(name) for name in whole.services}


def _kept(event: type[Event]) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((DOCS / "events" / f"{event.TOPIC}.json").read_text())
    return kept


def test_the_kept_examples_are_those_of_all_events_and_of_no_other() -> None:
    assert sorted(path.stem for path in (DOCS / "events").iterdir()) == sorted(BY_TOPIC)
    assert len(BY_TOPIC) == len(EVERY_EVENT), "a topic is one event's"


@pytest.mark.parametrize("event", EVERY_EVENT, ids=lambda event: event.TOPIC)
def test_an_event_is_written_as_its_kept_example_and_reads_it_back_whole(
    event: type[Event], generate: ModuleType
) -> None:
    kept = _kept(event)
    envelope = Envelope.model_validate(kept["example"])
    assert envelope.type == event.TOPIC == kept["topic"]
    assert event.model_validate(envelope.data).model_dump(mode="json") == kept["example"]["data"]
    assert generate.example(event) == envelope
    assert event.model_json_schema() == kept["data_schema"], "an optional field may be added; else it is a v2"


@pytest.mark.parametrize(
    "changed",
    [
        {"aggregateversion": 0},
        {"subject": "association"},
        {"subject": "association/7/8"},
        {"specversion": "2.0"},
        {"datacontenttype": "text/plain"},
        {"time": "2026-01-01T00:00:00"},
        {"id": "7"},
        {"data": None},
    ],
)
def test_an_envelope_that_cannot_be_relied_on_is_not_read(changed: dict[str, Any]) -> None:
    example = _kept(EVERY_EVENT[0])["example"]
    with pytest.raises(ValidationError):
        Envelope.model_validate(example | changed)


@pytest.mark.parametrize("event", EVERY_EVENT, ids=lambda event: event.TOPIC)
def test_a_topic_is_a_noun_what_happened_and_a_version(event: type[Event]) -> None:
    form = re.fullmatch(r"([a-z]+)\.([a-z]+)(_[a-z]+)*\.v[1-9][0-9]*", event.TOPIC)
    assert form is not None
    assert form[1] == event.KIND
    assert form[2].endswith("ed") or form[2] in {"made", "withdrawn"}, "the past tense"


@pytest.mark.parametrize("event", EVERY_EVENT, ids=lambda event: event.TOPIC)
def test_an_event_has_no_field_for_what_the_api_hides(event: type[Event]) -> None:
    assert HIDDEN & set(event.model_fields) == set()
    assert {
        json.dumps(schema) for schema in event.model_json_schema()["properties"].values() if _is_open(schema)
    } == set()


def _is_open(schema: dict[str, Any]) -> bool:
    """Whether anything at all could be put in the field."""
    return schema.get("type") in {"object", "array"} or not {"type", "$ref", "anyOf"} & set(schema)


def test_every_event_is_told_by_the_services_that_the_page_names_and_by_no_other(
    told: dict[str, list[Envelope]], generate: ModuleType
) -> None:
    really = {(envelope.type, service) for service, envelopes in told.items() for envelope in envelopes}
    named = {
        (event.TOPIC, command.__module__.split(".")[1])
        for event, commands in generate.PUBLISHED_BY.items()
        for command in commands
    }
    assert really == named
    assert {topic for topic, _ in really} == set(BY_TOPIC)


def test_an_event_as_it_is_told_carries_the_whole_of_its_facts_and_nothing_that_the_api_hides(
    told: dict[str, list[Envelope]],
) -> None:
    for envelopes in told.values():
        for envelope in envelopes:
            assert set(envelope.data) == set(BY_TOPIC[envelope.type].model_fields), envelope.type
            assert SECRET not in envelope.model_dump_json(), envelope.type


def test_the_versions_of_a_thing_are_told_in_order_and_each_once(told: dict[str, list[Envelope]]) -> None:
    versions: dict[str, list[int]] = {}
    for envelopes in told.values():
        for envelope in envelopes:
            versions.setdefault(envelope.subject, []).append(envelope.aggregateversion)
    assert {subject: seen for subject, seen in versions.items() if seen != list(range(1, len(seen) + 1))} == {}


def test_every_message_was_taken_by_its_consumers_and_none_is_parked(
    told: dict[str, list[Envelope]], whole: Whole
) -> None:
    assert any(told.values())
    assert {name: whole.run(parked(service.database)) for name, service in whole.services.items()} == {
        name: [] for name in whole.services
    }


def test_a_consumer_is_named_by_its_service_and_its_effect_and_hears_only_of_known_events() -> None:
    for definition in DEFINITIONS:
        for consumer in definition.consumers:
            assert re.fullmatch(rf"{definition.name}\.[a-z_]+", consumer.name)
            assert set(consumer.events) <= set(EVERY_EVENT)
