"""The documents that are made from the code: current, and whole. `make docs` makes them anew."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest

from contract.conftest import DOCS
from medperf_contracts.access import ACCESS, Role
from medperf_contracts.problems import MEDIA_TYPE
from medperf_contracts.versions import IDEMPOTENCY_HEADER
from services.composition import DEFINITIONS
from services.kernel.http import OWN_TRANSACTIONS

SERVICES = [definition.name for definition in DEFINITIONS]


def _operations() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for service in SERVICES
        for path, methods in json.loads((DOCS / "openapi" / f"{service}.json").read_text())["paths"].items()
        for method, operation in methods.items()
    ]


OPERATIONS = _operations()


def test_every_made_document_is_current(generate: ModuleType) -> None:
    made = generate.documents()
    old = [name for name, text in made.items() if not (DOCS / name).is_file() or (DOCS / name).read_text() != text]
    assert old == [], "run: make docs"
    assert generate.left_over(made) == [], "run: make docs"


def test_the_services_describe_every_endpoint() -> None:
    assert sorted(endpoint for endpoint, _ in OPERATIONS) == sorted(ACCESS)


@pytest.mark.parametrize(("endpoint", "operation"), OPERATIONS, ids=[endpoint for endpoint, _ in OPERATIONS])
def test_an_endpoint_declares_its_refusals_as_problems(endpoint: str, operation: dict[str, Any]) -> None:
    problems = {status: answer for status, answer in operation["responses"].items() if int(status) >= 400}
    for status, answer in problems.items():
        assert list(answer["content"]) == [MEDIA_TYPE], status
        assert answer["description"], status
    expected = {"400", "403", "422", "503"}
    if Role.NOBODY not in ACCESS[endpoint]:
        expected |= {"401"}
    if not endpoint.startswith("GET "):
        expected |= {"413"}
    if "{" in endpoint:
        expected |= {"404"}
    assert expected <= set(problems)


@pytest.mark.parametrize(("endpoint", "operation"), OPERATIONS, ids=[endpoint for endpoint, _ in OPERATIONS])
def test_an_endpoint_says_whether_it_needs_an_idempotency_key(endpoint: str, operation: dict[str, Any]) -> None:
    keys = [each["required"] for each in operation["parameters"] if each["name"] == IDEMPOTENCY_HEADER]
    needs_one = endpoint.startswith("POST ") and endpoint not in OWN_TRANSACTIONS
    assert keys == ([True] if needs_one else [])
