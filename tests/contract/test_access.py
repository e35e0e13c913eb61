"""Who may call what: the access table, held against every endpoint as it answers.

The answers' statuses are kept in access.golden.txt. After a change that is meant, make it anew and read the
difference: MEDPERF_WRITE_GOLDEN=1 pytest tests/contract/test_access.py
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from contract.cases import CASES, Case
from contract.whole import ADMIN, COMMITTEE, MODELER, OPERATOR, SECRET, SITE, STRANGER, Whole
from medperf_contracts.access import ACCESS, Role
from services.composition import DEFINITIONS
from services.gateway.routes import service_of
from services.kernel.http import OWN_TRANSACTIONS, ServiceRoute

pytestmark = pytest.mark.xdist_group("access")
GOLDEN = Path(__file__).with_name("access.golden.txt")
WRITE = "MEDPERF_WRITE_GOLDEN"
NO_SUCH_ROLE = "-"

Answers = dict[tuple[str, Role], str]


@pytest.fixture(scope="module")
def answers(whole: Whole) -> Answers:
    """What every endpoint answers to every role."""
    return {(case.name, role): answer for case in CASES for role, answer in _answers_of(whole, case).items()}


def _answers_of(whole: Whole, case: Case) -> dict[Role, str]:
    """Who is to be refused asks first, all on one thing; each who may change it then has a new one."""
    found = {}
    method = case.endpoint.partition(" ")[0]
    call, is_changed = case.make(whole), False
    for role in sorted(Role, key=case.admits):
        who = case.who(role)
        if who is None:
            found[role] = NO_SUCH_ROLE
            continue
        if is_changed:
            call = case.make(whole)
        response = whole.ask(who, method, call.path, call.body, headers=call.headers)
        whole.settle()
        found[role] = str(response.status_code)
        is_changed = method != "GET" and case.admits(role)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_endpoint_admits_the_roles_that_the_access_table_names_and_no_other(
    case: Case, answers: Answers
) -> None:
    for role in Role:
        answer = answers[case.name, role]
        if answer == NO_SUCH_ROLE:
            continue
        if case.admits(role):
            assert answer == str(case.success), f"{role.value} is admitted"
        elif role is Role.NOBODY:
            assert answer == "401"
        elif role is Role.OPERATOR:
            assert answer == "403"
        else:
            assert answer in {"403", "404"}, f"{role.value} is not admitted"


def test_every_answer_is_the_one_in_the_golden_table(answers: Answers) -> None:
    made = _table(answers)
    if os.environ.get(WRITE):
        GOLDEN.write_text(made)
    assert made == GOLDEN.read_text(), f"Meant? Then: {WRITE}=1 pytest {GOLDEN.with_name('test_access.py')}"


def _table(answers: Answers) -> str:
    rows = [("", *(role.value for role in Role))]
    rows += [(case.name, *(answers[case.name, role] for role in Role)) for case in CASES]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _routes() -> list[tuple[str, APIRoute]]:
    return [
        (definition.name, route)
        for definition in DEFINITIONS
        for router in definition.routers
        for route in router.routes
        if isinstance(route, APIRoute)
    ]


def test_the_access_table_the_routes_and_the_cases_name_the_same_endpoints() -> None:
    routes = [f"{method} {route.path_format}" for _, route in _routes() for method in route.methods or ()]
    assert sorted(routes) == sorted(ACCESS)
    assert {case.endpoint for case in CASES} == set(ACCESS)


def test_no_endpoint_goes_around_the_gate() -> None:
    for definition in DEFINITIONS:
        for router in definition.routers:
            assert [route for route in router.routes if not isinstance(route, ServiceRoute)] == []


def test_the_gateway_takes_each_path_to_the_service_that_has_it() -> None:
    routes = _routes()
    assert [service_of(route.path_format) for _, route in routes] == [service for service, _ in routes]


@pytest.mark.parametrize("endpoint", sorted(each for each in ACCESS if each.startswith("POST ")))
def test_a_post_without_an_idempotency_key_is_refused_unless_it_answers_secrets(
    endpoint: str, whole: Whole
) -> None:
    path = re.sub(r"\{\w+\}", "1", endpoint.removeprefix("POST /api/v1/"))
    who = {Role.OPERATOR: OPERATOR, Role.ADMINISTRATOR: ADMIN}.get(next(iter(sorted(ACCESS[endpoint]))), SITE)
    response = whole.ask(who, "POST", path, {}, key=False)
    if endpoint in OWN_TRANSACTIONS:
        assert (response.status_code, response.json()["code"]) == (422, "invalid_input")
    else:
        assert (response.status_code, response.json()["code"]) == (400, "idempotency_key_missing")


def test_only_login_and_refresh_take_no_idempotency_key() -> None:
    assert {"POST /api/v1/auth/login", "POST /api/v1/auth/refresh"} == OWN_TRANSACTIONS


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    """A server of its own, with one thing of each kind that not everybody may see."""
    few = Whole(tmp_path_factory.mktemp("few"))
    yield few
    few.close()


def test_a_list_holds_only_what_its_caller_may_see(few: Whole) -> None:
    hidden_container = few.container(SITE, in_operation=False)
    hidden_benchmark = few.benchmark(COMMITTEE, approved=False)
    unasked, asked = few.dataset(SITE), few.dataset(SITE)
    request = few.request(SITE, few.closed_scores, dataset=asked)
    closed, public = few.result(few.closed_scores), few.result(few.public_scores)
    of_model = few.result(few.closed_scores, few.model)

    def seen(who: str, path: str) -> set[int]:
        page = few.did(who, "GET", f"{path}?limit=100")
        assert page["next_cursor"] is None, "one page holds all of this test's things"
        return {item["id"] for item in page["items"]}

    def who_sees(path: str, thing: int) -> set[str]:
        return {who for who in (ADMIN, COMMITTEE, SITE, MODELER, STRANGER) if thing in seen(who, path)}

    everybody = {ADMIN, COMMITTEE, SITE, MODELER, STRANGER}
    assert who_sees("containers", few.model) == everybody
    assert who_sees("containers", hidden_container) == {SITE, ADMIN}
    assert who_sees("benchmarks", few.closed_scores) == everybody
    assert who_sees("benchmarks", hidden_benchmark) == {COMMITTEE, ADMIN}
    assert who_sees("datasets", unasked) == {SITE, ADMIN}
    assert who_sees("datasets", asked) == {SITE, COMMITTEE, ADMIN}
    assert who_sees("progress", few.progress(SITE, few.closed_scores)) == {SITE, COMMITTEE}
    assert who_sees("associations", request) == {SITE, COMMITTEE, ADMIN}
    assert who_sees("results", closed) == {SITE, COMMITTEE, ADMIN}
    assert who_sees("results", of_model) == {SITE, COMMITTEE, MODELER, ADMIN}
    assert who_sees("results", public) == everybody
    told = {who: few.did(who, "GET", "notifications?limit=100")["items"] for who in (SITE, COMMITTEE, STRANGER)}
    mine = {who: few.did(who, "GET", "users/me")["id"] for who in told}
    assert told[STRANGER] == []
    for who in (SITE, COMMITTEE):
        assert {item["user_id"] for item in told[who]} == {mine[who]}


@pytest.mark.parametrize(
    ("who", "sees_scores", "sees_dataset"),
    [(SITE, True, True), (COMMITTEE, True, True), (ADMIN, False, False), (MODELER, False, False)],
)
def test_a_result_shows_its_scores_and_its_dataset_to_those_alone_who_may_see_them(
    few: Whole, who: str, sees_scores: bool, sees_dataset: bool
) -> None:
    result = few.did(who, "GET", f"results/{few.result(few.closed_scores, few.model)}")
    assert (result["metrics"] == {"secret": SECRET}) is sees_scores
    assert (result["dataset_id"] is not None) is sees_dataset


def test_public_scores_do_not_tell_a_stranger_whose_data_they_are_of(few: Whole) -> None:
    result = few.did(STRANGER, "GET", f"results/{few.result(few.public_scores)}")
    assert result["metrics"] == {"secret": SECRET}
    of_the_site = ("dataset_id", "dataset_hash", "engine", "engine_reason", "started_at")
    assert [result[name] for name in of_the_site] == [None] * 5


def test_what_is_due_of_a_dataset_is_shown_to_another_benchmarks_owner_for_that_benchmark_alone(
    few: Whole,
) -> None:
    dataset = few.joined_dataset(few.closed_scores)
    other = few.benchmark(MODELER)
    association = few.request(SITE, other, dataset=dataset)
    few.did(MODELER, "POST", f"associations/{association}/approve", {})

    def benchmarks_due(who: str) -> set[int]:
        return {item["benchmark_id"] for item in few.did(who, "GET", f"due?dataset={dataset}")["items"]}

    assert benchmarks_due(SITE) == {few.closed_scores, other}
    assert benchmarks_due(COMMITTEE) == {few.closed_scores}
    assert benchmarks_due(MODELER) == {other}
