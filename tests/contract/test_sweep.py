"""A sweep: whatever a service's own description allows or forbids, no request makes it fail.

The requests are generated from the description, the same ones each time, and sent to real services with things in
them; each answer must be one that the description declares.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

from contract.whole import ADMIN, API, OPERATOR, SITE, Whole
from medperf_contracts.problems import MEDIA_TYPE, Problem
from medperf_contracts.versions import IDEMPOTENCY_HEADER, SEEN_HEADER
from services.composition import DEFINITIONS

pytestmark = pytest.mark.xdist_group("sweep")
CALLERS = [(definition.name, who) for definition in DEFINITIONS for who in (SITE, ADMIN)]
CALLERS.append(("accounts", OPERATOR))
BASE = "http://test"
EXAMPLES = 4  # for each endpoint, kind of data and caller: some 600 requests in some 20 s
# The caller has a login of their own, and a version that is never seen would be waited for, each time.
NOT_SENT = {SEEN_HEADER.lower(), "authorization"}


@pytest.fixture(scope="module")
def filled(whole: Whole) -> Whole:
    """Things that the requests can hit: small IDs are there."""
    whole.result(whole.public_scores)
    whole.result(whole.closed_scores, whole.model)
    return whole


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
@pytest.mark.parametrize(("service", "who"), CALLERS)
def test_no_request_makes_a_service_fail(filled: Whole, service: str, mode: GenerationMode, who: str) -> None:
    for found in schemathesis.openapi.from_dict(filled.openapi(service)).get_all_operations():
        _sweep(filled, found.ok(), mode, who)


def _sweep(whole: Whole, operation: Any, mode: GenerationMode, who: str) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        response = _ask(whole, who, case, mode)
        assert response.status_code != 500, response.text
        declared = operation.definition.raw["responses"]
        assert str(response.status_code) in declared, f"{operation.label}: {response.text[:500]}"
        if response.is_error:
            assert response.headers["content-type"] == MEDIA_TYPE
            assert Problem.model_validate_json(response.content).hint

    send()


def _ask(whole: Whole, who: str, case: Any, mode: GenerationMode) -> httpx.Response:
    wire = case.as_transport_kwargs(base_url=BASE)
    is_right = mode is GenerationMode.POSITIVE
    # A right request has a key of its own each time, so that it reaches the command.
    not_sent = NOT_SENT | {IDEMPOTENCY_HEADER.lower()} if is_right else NOT_SENT
    query = urlencode(wire["params"] or {}, doseq=True)
    return whole.ask(
        who,
        wire["method"],
        wire["url"].removeprefix(f"{BASE}{API}/") + (query and f"?{query}"),
        headers={name: value for name, value in wire["headers"].items() if name.lower() not in not_sent},
        content=json.dumps(wire["json"]).encode() if "json" in wire else wire.get("data"),
        key=is_right,
    )
