"""Results: HTTP in, rows and events out; what is due, as others' events tell it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import DatabaseError, DBAPIError

from medperf_contracts.access import Role
from medperf_contracts.associations import AssociationState, PartKind
from medperf_contracts.envelope import Envelope
from medperf_contracts.events import AssociationApproved, AssociationPrioritized, AssociationWithdrawn, Event
from medperf_contracts.results import NewResult
from medperf_contracts.values import Decision, State
from service import facts
from service.facts import ADMIN, COMMITTEE, METRICS_HASH, MODEL_OWNER, SITE, STRANGER
from service.peer import Peer, envelope_of
from services.kernel import migrate
from services.kernel.auth import Caller
from services.kernel.db import Database
from services.kernel.inbox import Consumer, handle_once
from services.kernel.service import Definition
from services.kernel.tables import KERNEL
from services.results import commands
from services.results.app import DEFINITION
from services.results.consumers import CONSUMERS
from services.results.domain import Result
from services.results.errors import AlreadySubmitted
from services.results.tables import metadata, results

PATH, DUE = "/api/v1/results", "/api/v1/due"
MODEL_IN = facts.association(
    id=2,
    part_kind=PartKind.MODEL,
    part_id=4,
    part_name="second",
    part_owner_id=MODEL_OWNER,
    requested_by=MODEL_OWNER,
)
BODY: dict[str, Any] = {
    "benchmark_id": 1,
    "model_id": 4,
    "dataset_id": 1,
    "is_partial": False,
    "metrics": {"auc": 0.91, "undefined": None},
    "engine": "sandbox",
    "dataset_hash": "e" * 64,
    "model_hash": "4" * 64,
    "metrics_hash": METRICS_HASH,
    "started_at": "2026-03-04T05:06:07.123456Z",
    "finished_at": "2026-03-04T06:07:00+01:00",
}
PARTIAL = BODY | {"is_partial": True, "metrics": {"auc": 0.5}}
REFERENCE = BODY | {"model_id": 2, "model_hash": "2" * 64}


@pytest.fixture
def bare(start: Callable[[Definition], Peer]) -> Peer:
    """The service, told of a benchmark, its models and a dataset; nothing is approved for it yet."""
    peer = start(DEFINITION)
    peer.tell(facts.benchmark())
    peer.tell(facts.container())
    peer.tell(facts.container(id=2, name="reference", owner_id=COMMITTEE, hash="2" * 64))
    peer.tell(facts.dataset())
    return peer


@pytest.fixture
def peer(bare: Peer) -> Peer:
    """The service, told that dataset 1 and model 4 take part in benchmark 1."""
    bare.tell(facts.association(), version=2)
    bare.tell(MODEL_IN, version=2)
    return bare


def submitted(peer: Peer, body: dict[str, Any] = BODY, *, by: int = SITE) -> int:
    response = peer.call("POST", PATH, body, by=by)
    assert response.status_code == 201, response.text
    return int(response.json()["id"])


def due(peer: Peer, query: str = "dataset=1", *, by: int = SITE, **options: Any) -> list[tuple[int, str]]:
    response = peer.call("GET", f"{DUE}?{query}", by=by, **options)
    assert response.status_code == 200, response.text
    assert response.json()["next_cursor"] is None
    return [(item["model_id"], item["state"]) for item in response.json()["items"]]


def withdrawn(association_id: int = 1) -> AssociationWithdrawn:
    approved = facts.association() if association_id == 1 else MODEL_IN
    return AssociationWithdrawn.model_validate(approved.model_dump() | {"state": AssociationState.WITHDRAWN})


# Each alone ends what is due, with the code that refuses a submission and the reason shown at an accepted result.
ENDINGS: dict[str, tuple[Callable[[Peer], Any], str, str]] = {
    "dataset withdrawn": (
        lambda peer: peer.tell(withdrawn(1), version=3),
        "association_not_approved",
        "the dataset has no approved association with the benchmark",
    ),
    "model withdrawn": (
        lambda peer: peer.tell(withdrawn(2), version=3),
        "model_not_in_benchmark",
        "the model has no approved association with the benchmark",
    ),
    "benchmark invalid": (
        lambda peer: peer.tell(facts.benchmark(is_valid=False), version=2),
        "benchmark_not_open",
        "the benchmark is marked invalid",
    ),
    "model invalid": (
        lambda peer: peer.tell(facts.container(is_valid=False), version=2),
        "not_valid",
        "the model is marked invalid",
    ),
    "metrics invalid": (
        lambda peer: peer.tell(facts.container(id=3, is_valid=False), version=2),
        "not_valid",
        "the benchmark's metrics container is marked invalid",
    ),
    "dataset invalid": (
        lambda peer: peer.tell(facts.dataset(is_valid=False), version=2),
        "not_valid",
        "the dataset is marked invalid",
    ),
}


# --- what is due


def test_due_is_the_reference_model_first_and_then_every_approved_model(peer: Peer) -> None:
    peer.tell(facts.container(id=5, hash="5" * 64))
    peer.tell(facts.container(id=6, hash="6" * 64))
    peer.tell(facts.association(**MODEL_IN.model_dump() | {"id": 3, "part_id": 5}))
    peer.tell(facts.benchmark(reference_model_id=5), version=2)
    assert due(peer) == [(5, "due"), (4, "due")]
    peer.tell(facts.benchmark(), version=3)
    assert due(peer) == [(2, "due"), (4, "due"), (5, "due")]


def test_what_is_due_is_said_whole(peer: Peer) -> None:
    number = submitted(peer)
    assert peer.call("GET", f"{DUE}?dataset=1", by=SITE).json()["items"] == [
        {
            "benchmark_id": 1,
            "dataset_id": 1,
            "model_id": 2,
            "is_reference_model": True,
            "priority": 0,
            "state": "due",
            "result_id": None,
        },
        {
            "benchmark_id": 1,
            "dataset_id": 1,
            "model_id": 4,
            "is_reference_model": False,
            "priority": 0,
            "state": "accepted",
            "result_id": number,
        },
    ]


def test_nothing_is_due_while_the_association_is_not_approved(bare: Peer) -> None:
    bare.tell(MODEL_IN)
    assert due(bare) == []
    bare.tell(facts.association(state=AssociationState.PENDING))
    assert due(bare) == []
    bare.tell(facts.association(), version=2)
    assert due(bare) == [(2, "due"), (4, "due")]


@pytest.mark.parametrize("ending", list(ENDINGS))
def test_whatever_ends_it_takes_off_what_is_due_and_only_that(peer: Peer, ending: str) -> None:
    ENDINGS[ending][0](peer)
    expected = [(2, "due")] if ending.startswith("model") else []
    assert due(peer) == expected


def test_an_invalid_reference_model_is_not_due(peer: Peer) -> None:
    peer.tell(facts.container(id=2, owner_id=COMMITTEE, hash="2" * 64, is_valid=False), version=2)
    assert due(peer) == [(4, "due")]


def test_a_benchmark_that_is_not_approved_wants_nothing(peer: Peer) -> None:
    peer.tell(facts.benchmark(approval=Decision.REJECTED), version=2)
    assert due(peer) == []
    peer.tell(facts.benchmark(state=State.DEVELOPMENT), version=3)
    assert due(peer) == []


def test_an_association_made_anew_and_heard_of_first_doubles_nothing(peer: Peer) -> None:
    peer.tell(facts.association(id=8), version=2)
    peer.tell(facts.association(**MODEL_IN.model_dump() | {"id": 9}), version=2)
    assert due(peer) == [(2, "due"), (4, "due")]
    submitted(peer)
    peer.tell(withdrawn(1), version=3)
    assert due(peer) == [(2, "due"), (4, "accepted")]
    assert len(peer.call("GET", PATH, by=SITE).json()["items"]) == 1


def test_an_older_event_never_replaces_a_newer_copy(peer: Peer) -> None:
    peer.tell(withdrawn(1), version=3)
    peer.tell(facts.association(), version=2)
    assert due(peer) == []


@pytest.mark.parametrize(
    ("fact", "left"),
    [(facts.benchmark, []), (facts.dataset, []), (facts.container, [(2, "due")])],
)
def test_an_older_event_does_not_take_back_that_a_thing_is_invalid(
    peer: Peer, fact: Callable[..., Event], left: list[tuple[int, str]]
) -> None:
    peer.tell(fact(is_valid=False), version=3)
    peer.tell(fact(), version=2)
    assert due(peer) == left
    peer.tell(fact(), version=4)
    assert due(peer) == [(2, "due"), (4, "due")]


def test_due_is_of_one_benchmark_where_one_is_named(peer: Peer) -> None:
    peer.tell(facts.benchmark(id=7, owner_id=STRANGER))
    peer.tell(facts.association(id=8, benchmark_id=7, benchmark_owner_id=STRANGER))
    assert due(peer) == [(2, "due"), (4, "due"), (2, "due")]
    assert due(peer, "dataset=1&benchmark=7") == [(2, "due")]
    assert due(peer, "dataset=1&benchmark=77") == []


def test_the_benchmarks_owner_sees_what_is_due_of_their_own_benchmark_only(peer: Peer) -> None:
    peer.tell(facts.benchmark(id=7, owner_id=STRANGER))
    peer.tell(facts.association(id=8, benchmark_id=7, benchmark_owner_id=STRANGER))
    assert due(peer, by=COMMITTEE) == [(2, "due"), (4, "due")]
    assert due(peer, by=STRANGER) == [(2, "due")]
    assert due(peer, "dataset=1&benchmark=1", by=STRANGER) == []


def test_what_is_due_is_nobody_elses_to_know(peer: Peer) -> None:
    for user, dataset in ((STRANGER, 1), (MODEL_OWNER, 1), (SITE, 77), (COMMITTEE, 77)):
        response = peer.call("GET", f"{DUE}?dataset={dataset}", by=user)
        assert (response.status_code, response.json()["code"]) == (404, "no_such_thing")
    assert peer.call("GET", f"{DUE}?dataset=1").json()["code"] == "token_missing"
    assert peer.call("GET", f"{DUE}?dataset=77", by=ADMIN, admin=True).status_code == 404


def test_the_benchmarks_owner_is_answered_from_the_request_on_and_a_withdrawal_ends_what_is_due(
    bare: Peer,
) -> None:
    assert bare.call("GET", f"{DUE}?dataset=1", by=COMMITTEE).status_code == 404
    bare.tell(facts.association(state=AssociationState.PENDING))
    assert due(bare, by=COMMITTEE) == []
    bare.tell(facts.association(), version=2)
    assert due(bare, by=COMMITTEE) == [(2, "due")]
    bare.tell(withdrawn(1), version=3)
    assert due(bare, by=COMMITTEE) == []


def test_what_is_due_is_filtered_by_state(peer: Peer) -> None:
    submitted(peer, BODY | {"is_partial": True})
    submitted(peer, REFERENCE)

    def models(query: str) -> list[int]:
        answer = peer.call("GET", f"{DUE}?dataset=1{query}", by=SITE)
        assert answer.status_code == 200, answer.text
        return [item["model_id"] for item in answer.json()["items"]]

    assert models("") == [2, 4]
    assert models("&state=accepted") == [2]
    assert models("&state=due") == []
    assert models("&state=due&state=partial") == models("&state=partial") == [4]
    assert peer.call("GET", f"{DUE}?dataset=1&state=open", by=SITE).status_code == 422


def test_a_request_waits_for_the_approval_that_its_caller_has_seen(bare: Peer) -> None:
    seen = {"Medperf-Seen": "association/1@2"}
    refused = bare.call("GET", f"{DUE}?dataset=1", by=SITE, headers=seen)
    assert (refused.status_code, refused.json()["code"]) == (503, "not_known_yet")
    assert refused.headers["Retry-After"] == "1"

    async def ask_and_then_approve() -> Any:
        asking = asyncio.create_task(bare.send("GET", f"{DUE}?dataset=1", by=SITE, headers=seen))
        await asyncio.sleep(0.2)
        assert not asking.done()
        await bare.bus.publish([envelope_of(facts.association(), version=2)])
        return await asking

    assert [item["model_id"] for item in bare.run(ask_and_then_approve()).json()["items"]] == [2]


@pytest.mark.only_on(
    "sqlite", because="there a second session waits; on PostgreSQL both are open, with a test there"
)
@pytest.mark.parametrize("first_to_commit", ["dataset", "model"])
def test_two_approvals_handled_at_once_both_count_in_either_order(bare: Peer, first_to_commit: str) -> None:
    """Two sessions of two processes are open at once; the second is let in at the first one's commit."""
    approvals = {"dataset": envelope_of(facts.association(), version=2), "model": envelope_of(MODEL_IN, version=2)}
    first = approvals.pop(first_to_commit)
    (second,) = approvals.values()
    url = bare.service.settings.database_url

    async def deliver_both() -> None:
        other_process = Database(url, service="results")

        async def handle_second() -> None:
            async with other_process.write() as session:
                assert await handle_once(session, CONSUMERS[-1], second)

        try:
            async with bare.service.database.write() as session:
                assert await handle_once(session, CONSUMERS[-1], first)
                waiting = asyncio.create_task(handle_second())
                await asyncio.sleep(0.2)
                assert not waiting.done()
            await waiting
        finally:
            await other_process.close()

    bare.run(deliver_both())
    assert due(bare) == [(2, "due"), (4, "due")]


# --- submitting


def test_a_result_is_accepted_where_it_is_due_and_answered_as_it_is_kept(peer: Peer) -> None:
    response = peer.call("POST", PATH, BODY, by=SITE)
    assert response.status_code == 201
    view = response.json()
    assert response.headers["Medperf-Version"] == f"result/{view['id']}@1"
    kept = {name: value for name, value in view.items() if name in BODY}
    times = {"started_at": "2026-03-04T05:06:07.123000Z", "finished_at": "2026-03-04T05:07:00Z"}
    assert kept == BODY | times
    assert (view["is_current"], view["not_current_because"]) == (True, [])
    assert peer.call("GET", f"{PATH}/{view['id']}", by=SITE).json() == view
    assert peer.call("GET", PATH, by=SITE).json()["items"] == [view]
    assert due(peer) == [(2, "due"), (4, "accepted")]


def test_an_accepted_result_records_one_event_with_names_and_owners_and_no_scores(peer: Peer) -> None:
    number = submitted(peer)
    (event,) = peer.events()
    assert (event.type, event.subject, event.aggregateversion) == ("result.submitted.v1", f"result/{number}", 1)
    assert event.data == {
        "id": number,
        "benchmark_id": 1,
        "benchmark_name": "chest",
        "benchmark_owner_id": COMMITTEE,
        "model_id": 4,
        "model_name": "second",
        "model_owner_id": MODEL_OWNER,
        "dataset_id": 1,
        "dataset_owner_id": SITE,
        "is_partial": False,
    }


def test_the_same_key_submits_once_and_is_answered_the_same(peer: Peer) -> None:
    first = peer.call("POST", PATH, BODY, by=SITE, key="a-key-of-mine")
    again = peer.call("POST", PATH, BODY, by=SITE, key="a-key-of-mine")
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["Medperf-Version"] == first.headers["Medperf-Version"]
    assert len(peer.events()) == 1
    other = peer.call("POST", PATH, REFERENCE, by=SITE, key="a-key-of-mine")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")


def test_a_partial_result_may_be_followed_by_one_whole_one_and_by_nothing_else(peer: Peer) -> None:
    partial = submitted(peer, PARTIAL)
    assert due(peer) == [(2, "due"), (4, "partial")]
    items = peer.call("GET", f"{DUE}?dataset=1", by=SITE).json()["items"]
    assert [item["result_id"] for item in items] == [None, partial]
    refused = peer.call("POST", PATH, PARTIAL, by=SITE)
    assert (refused.status_code, refused.json()["code"]) == (409, "already_submitted")
    assert refused.json()["existing"] == f"result/{partial}"
    whole = submitted(peer)
    assert due(peer) == [(2, "due"), (4, "accepted")]
    for body in (BODY, PARTIAL):
        refused = peer.call("POST", PATH, body, by=SITE)
        assert (refused.status_code, refused.json()["code"]) == (409, "already_submitted")
    assert peer.call("POST", PATH, BODY, by=SITE).json()["existing"] == f"result/{whole}"
    assert [item["is_partial"] for item in peer.call("GET", PATH, by=SITE).json()["items"]] == [True, False]


def test_a_partial_result_never_follows_a_whole_one(peer: Peer) -> None:
    whole = submitted(peer)
    refused = peer.call("POST", PATH, PARTIAL, by=SITE)
    assert (refused.status_code, refused.json()["existing"]) == (409, f"result/{whole}")


@pytest.mark.parametrize("ending", list(ENDINGS))
def test_where_nothing_is_due_a_result_is_refused_with_the_reason_and_changes_nothing(
    peer: Peer, ending: str
) -> None:
    end, code, why = ENDINGS[ending]
    end(peer)
    refused = peer.call("POST", PATH, BODY, by=SITE)
    assert (refused.status_code, refused.json()["code"]) == (409, code)
    assert why in refused.json()["detail"]
    assert refused.json()["hint"]
    assert (peer.events(), peer.call("GET", PATH, by=SITE).json()["items"]) == ([], [])


def test_a_result_without_an_approval_is_refused(bare: Peer) -> None:
    bare.tell(MODEL_IN)
    for state in (None, AssociationState.PENDING, AssociationState.REJECTED):
        if state is not None:
            bare.tell(facts.association(state=state), version=1 + (state is AssociationState.REJECTED))
        refused = bare.call("POST", PATH, BODY, by=SITE)
        assert (refused.status_code, refused.json()["code"]) == (409, "association_not_approved")


def test_a_model_that_does_not_take_part_is_refused(bare: Peer) -> None:
    bare.tell(facts.association())
    refused = bare.call("POST", PATH, BODY, by=SITE)
    assert (refused.status_code, refused.json()["code"]) == (409, "model_not_in_benchmark")
    submitted(bare, REFERENCE)


def test_an_approval_of_another_benchmark_or_kind_counts_for_nothing(bare: Peer) -> None:
    bare.tell(facts.association(id=5, benchmark_id=6))
    bare.tell(facts.association(**MODEL_IN.model_dump() | {"id": 6, "part_id": 1}))
    bare.tell(facts.association(id=7, part_id=4))
    assert due(bare) == []
    assert bare.call("POST", PATH, REFERENCE, by=SITE).json()["code"] == "association_not_approved"


@pytest.mark.parametrize(
    ("field", "named"),
    [
        ("dataset_hash", "dataset 1 has the hash e"),
        ("model_hash", "model 4 has the hash 4"),
        ("metrics_hash", "the metrics container of benchmark 1 has the hash c"),
    ],
)
def test_a_hash_that_is_not_the_registered_one_is_refused(peer: Peer, field: str, named: str) -> None:
    refused = peer.call("POST", PATH, BODY | {field: "f" * 64}, by=SITE)
    assert (refused.status_code, refused.json()["code"]) == (409, "hash_differs")
    assert named in refused.json()["detail"]
    assert peer.events() == []
    submitted(peer)


@pytest.mark.parametrize(
    "changed",
    [
        {"finished_at": "2026-03-04T05:06:07Z"},
        {"metrics": {}},
        {"metrics": [1]},
        {"engine": ""},
        {"engine_reason": "auto\nsandbox"},
        {"engine_reason": "a" * 257},
        {"started_at": "2026-03-04T05:06:07"},
        {"model_hash": "4"},
        {"dataset_id": 2**63},
        {"note": "a misspelt field"},
    ],
)
def test_an_invalid_result_is_refused_by_its_field(peer: Peer, changed: dict[str, Any]) -> None:
    refused = peer.call("POST", PATH, BODY | changed, by=SITE)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")
    assert refused.json()["fields"]


@pytest.mark.parametrize("number", ["NaN", "Infinity"])
def test_a_metric_that_is_no_number_is_refused(peer: Peer, number: str) -> None:
    content = b'{"metrics": {"auc": %s}}' % number.encode()
    refused = peer.call("POST", PATH, by=SITE, content=content)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_document")


def test_only_the_datasets_owner_submits(peer: Peer) -> None:
    for user, status in ((None, 401), (STRANGER, 404), (MODEL_OWNER, 404), (COMMITTEE, 403)):
        assert peer.call("POST", PATH, BODY, by=user).status_code == status
    assert peer.call("POST", PATH, BODY, by=ADMIN, admin=True).status_code == 403
    missing = peer.call("POST", PATH, BODY | {"dataset_id": 77}, by=STRANGER).json()
    hidden = peer.call("POST", PATH, BODY, by=STRANGER).json()
    assert (missing["code"], missing["detail"].replace("77", "1")) == (hidden["code"], hidden["detail"])
    assert peer.events() == []


def test_a_benchmark_or_model_that_the_site_may_not_know_is_answered_as_one_that_is_not_there(peer: Peer) -> None:
    peer.tell(facts.benchmark(id=7, approval=Decision.PENDING))
    peer.tell(facts.container(id=8, state=State.DEVELOPMENT))
    for changed in ({"benchmark_id": 7}, {"benchmark_id": 77}, {"model_id": 8}, {"model_id": 77}):
        refused = peer.call("POST", PATH, BODY | changed, by=SITE)
        assert (refused.status_code, refused.json()["code"]) == (404, "no_such_thing")


def test_two_results_at_the_same_moment_leave_one(peer: Peer) -> None:
    """The unique index refuses the second row even where its session saw none: the check alone would not."""
    submitted(peer)

    async def add_a_second() -> None:
        async with peer.service.database.write() as session:
            row = dict((await session.execute(select(results))).mappings().one())
            del row["id"]
            await session.execute(insert(results).values(**row))

    with pytest.raises(DatabaseError, match=r"(?i)unique"):
        peer.run(add_a_second())


def test_a_twin_that_the_check_cannot_see_is_refused_by_the_unique_index(peer: Peer) -> None:
    """The twin reaches the table with the new row, after the check: as another session's would at that moment."""
    body = NewResult.model_validate(BODY)
    site = Caller(SITE, "site", is_admin=False, is_operator=False, admitted=frozenset({Role.OWNER}))

    async def submit_twice() -> None:
        async with peer.service.database.write() as session:
            session.add(Result(submitted_at=body.finished_at, **body.model_dump()))
            await commands.submit(session, site, body)

    with pytest.raises(AlreadySubmitted):
        peer.run(submit_twice())
    assert peer.events() == []
    submitted(peer)


def test_a_submission_and_a_withdrawal_at_the_same_moment_come_one_after_the_other(peer: Peer) -> None:
    """A withdrawal is handled in another process, not committed yet: the submission waits, then is refused.

    On PostgreSQL the lock on the association's row makes this order; its statement is read in the unit tests.
    """
    url = peer.service.settings.database_url

    async def withdraw_and_submit() -> Any:
        other_process = Database(url, service="results")
        try:
            async with other_process.write() as session:
                assert await handle_once(session, CONSUMERS[-1], envelope_of(withdrawn(1), version=3))
                submitting = asyncio.create_task(peer.send("POST", PATH, BODY, by=SITE))
                await asyncio.sleep(0.2)
                assert not submitting.done()
            return await submitting
        finally:
            await other_process.close()

    assert peer.run(withdraw_and_submit()).json()["code"] == "association_not_approved"


# --- in which order


@pytest.fixture
def three(peer: Peer) -> Peer:
    """The service, told that models 5 and 6 take part too, as associations 3 and 4."""
    for number in (5, 6):
        peer.tell(facts.container(id=number, hash=str(number) * 64))
        peer.tell(AssociationApproved.model_validate(of_model(number)), version=2)
    return peer


def of_model(model_id: int, **changed: Any) -> dict[str, Any]:
    return MODEL_IN.model_dump() | {"id": model_id - 2, "part_id": model_id} | changed


def prioritized(model_id: int, priority: int, **changed: Any) -> AssociationPrioritized:
    return AssociationPrioritized.model_validate(of_model(model_id, priority=priority, **changed))


def order(peer: Peer) -> list[tuple[int, int]]:
    """The models that are due, as they are to be run, with their priorities."""
    items = peer.call("GET", f"{DUE}?dataset=1&state=due", by=SITE).json()["items"]
    return [(item["model_id"], item["priority"]) for item in items]


def test_what_is_due_comes_with_the_reference_model_first_then_by_priority_then_by_id(three: Peer) -> None:
    assert order(three) == [(2, 0), (4, 0), (5, 0), (6, 0)]
    three.tell(prioritized(6, 10), version=3)
    assert order(three) == [(2, 0), (6, 10), (4, 0), (5, 0)]
    three.tell(prioritized(4, -1), version=3)
    assert order(three) == [(2, 0), (6, 10), (5, 0), (4, -1)]
    three.tell(prioritized(5, 10), version=3)
    assert order(three) == [(2, 0), (5, 10), (6, 10), (4, -1)]
    three.tell(prioritized(6, 0), version=4)
    assert order(three) == [(2, 0), (5, 10), (6, 0), (4, -1)]


def test_a_priority_that_was_set_while_the_model_waited_counts_from_its_approval(bare: Peer) -> None:
    bare.tell(facts.association(), version=2)
    bare.tell(prioritized(4, 10, state=AssociationState.PENDING), version=2)
    assert order(bare) == [(2, 0)]
    bare.tell(AssociationApproved.model_validate(of_model(4, priority=10)), version=3)
    assert order(bare) == [(2, 0), (4, 10)]


@pytest.mark.parametrize("arrival", list(itertools.permutations(range(3))))
def test_priorities_that_come_doubled_late_and_in_any_order_end_with_the_last_that_was_set(
    bare: Peer, arrival: tuple[int, ...]
) -> None:
    bare.tell(facts.association(), version=2)
    bare.tell(facts.container(id=6, hash="6" * 64))
    bare.tell(AssociationApproved.model_validate(of_model(4, priority=5)), version=2)
    told = [
        envelope_of(AssociationApproved.model_validate(of_model(6)), version=2),
        envelope_of(prioritized(6, 10), version=3),
        envelope_of(prioritized(6, 1), version=4),
    ]
    late = [told[number] for number in arrival]
    for envelope in (*late, *reversed(late), *late):
        bare.run(bare.bus.publish([envelope]))
    assert order(bare) == [(2, 0), (4, 5), (6, 1)]
    assert bare.parked() == []


def test_a_later_event_of_an_earlier_version_does_not_bring_the_old_priority_back(three: Peer) -> None:
    three.tell(prioritized(6, 10), version=5)
    three.tell(prioritized(6, -10), version=4)
    three.tell(AssociationApproved.model_validate(of_model(6)), version=2)
    assert order(three) == [(2, 0), (6, 10), (4, 0), (5, 0)]


def test_events_from_before_there_were_priorities_count_as_0(bare: Peer) -> None:
    bare.tell(facts.association(), version=2)
    envelope = envelope_of(MODEL_IN, version=2)
    before = {name: value for name, value in envelope.data.items() if name != "priority"}
    assert before.keys() != envelope.data.keys()
    bare.run(bare.bus.publish([envelope.model_copy(update={"data": before})]))
    assert order(bare) == [(2, 0), (4, 0)]


def test_a_model_made_to_take_part_anew_has_the_priority_of_its_later_association(three: Peer) -> None:
    """The new association is heard of first: both are known as approved for a moment; it is due once."""
    three.tell(prioritized(4, 10), version=3)
    three.tell(AssociationApproved.model_validate(of_model(4, id=8, priority=-1)), version=2)
    assert order(three) == [(2, 0), (5, 0), (6, 0), (4, -1)]
    three.tell(withdrawn(2), version=4)
    assert order(three) == [(2, 0), (5, 0), (6, 0), (4, -1)]


def test_an_association_that_only_waits_has_no_say_in_the_order(three: Peer) -> None:
    """Asked for anew, and the withdrawal of the one before is still on its way."""
    three.tell(prioritized(4, 10), version=3)
    three.tell(prioritized(4, -1, id=8, state=AssociationState.PENDING), version=2)
    assert order(three) == [(2, 0), (4, 10), (5, 0), (6, 0)]


def test_a_dataset_of_the_same_number_as_a_model_has_no_say_in_the_order(three: Peer) -> None:
    three.tell(prioritized(6, 10), version=3)
    three.tell(facts.association(id=11, part_id=6), version=2)
    assert order(three) == [(2, 0), (6, 10), (4, 0), (5, 0)]


def test_a_priority_is_one_benchmarks(three: Peer) -> None:
    three.tell(facts.benchmark(id=7, owner_id=STRANGER))
    three.tell(facts.association(id=8, benchmark_id=7), version=2)
    three.tell(AssociationApproved.model_validate(of_model(6, id=9, benchmark_id=7)), version=2)
    three.tell(AssociationApproved.model_validate(of_model(4, id=10, benchmark_id=7)), version=2)
    three.tell(prioritized(6, 10), version=3)
    assert order(three) == [(2, 0), (6, 10), (4, 0), (5, 0), (2, 0), (4, 0), (6, 0)]


# --- an accepted result is final


@pytest.mark.parametrize("change", [update(results).values(metrics={"auc": 1.0}), delete(results)])
def test_the_database_refuses_to_alter_an_accepted_result(peer: Peer, change: Any) -> None:
    number = submitted(peer)

    async def alter() -> None:
        async with peer.service.database.write() as session:
            await session.execute(change)

    with pytest.raises(DBAPIError, match="a result is final"):
        peer.run(alter())
    assert peer.call("GET", f"{PATH}/{number}", by=SITE).json()["metrics"] == BODY["metrics"]


def test_a_result_that_is_altered_by_mistake_is_not_saved(peer: Peer) -> None:
    number = submitted(peer)

    async def alter() -> None:
        async with peer.service.database.write() as session:
            (await session.get_one(Result, number)).is_partial = True

    with pytest.raises(DBAPIError, match="a result is final"):
        peer.run(alter())


def test_a_result_says_why_its_engine_was_chosen_and_none_is_made_up(peer: Peer) -> None:
    reason = "auto: it has the image sha256:" + "a" * 64
    said = submitted(peer, BODY | {"engine": "docker", "engine_reason": reason})
    unsaid = submitted(peer, REFERENCE)
    for number, shown in ((said, ("docker", reason)), (unsaid, ("sandbox", ""))):
        view = peer.call("GET", f"{PATH}/{number}", by=SITE).json()
        assert (view["engine"], view["engine_reason"]) == shown
    assert reason not in "".join(envelope.model_dump_json() for envelope in peer.events())


def test_results_of_the_first_schema_are_kept_stay_final_and_go_on_being_inserted(empty_database: str) -> None:
    old = ", ".join(column.name for column in results.columns if column.name != "engine_reason")
    values = "{}, 1, 1, 4, {}, FALSE, '{{}}', 'sandbox', 'e', '4', 'c', 1, 2, 3"
    insert_old = f"INSERT INTO results ({old}) VALUES ({values})"

    async def work() -> list[str]:
        database = Database(empty_database, service="results")
        async with database.engine.begin() as connection:
            await connection.run_sync(lambda sync: command.upgrade(migrate.config_of("results", sync), "0001"))
            await connection.exec_driver_sql(insert_old.format(1, 1))
        await migrate.upgrade(database)
        async with database.engine.begin() as connection:
            await connection.exec_driver_sql(insert_old.format(2, 2))
            kept = list((await connection.execute(select(results.c.engine_reason))).scalars())
            with pytest.raises(DBAPIError, match="a result is final"):
                await connection.execute(update(results).values(engine_reason="another"))
        await database.close()
        return kept

    assert asyncio.run(work()) == ["", ""]


def test_no_endpoint_changes_a_result(peer: Peer) -> None:
    paths = peer.app.openapi()["paths"]
    methods = {(method, path) for path, described in paths.items() for method in described}
    own = {("post", PATH), ("get", PATH), ("get", f"{PATH}/{{result_id}}"), ("get", DUE)}
    # Every service has these, for messages that it could not handle.
    messages = "/api/v1/dead-letters/results"
    looks = {("get", messages), ("get", f"{messages}/dropped"), ("get", f"{messages}/story")}
    assert methods == own | looks | {("post", f"{messages}/replay"), ("post", f"{messages}/drop")}


@pytest.mark.parametrize("ending", list(ENDINGS))
def test_an_accepted_result_stays_and_says_why_it_no_longer_counts(peer: Peer, ending: str) -> None:
    number = submitted(peer)
    end, _, why = ENDINGS[ending]
    end(peer)
    for user in (SITE, COMMITTEE, MODEL_OWNER):
        view = peer.call("GET", f"{PATH}/{number}", by=user).json()
        assert (view["is_current"], view["not_current_because"]) == (False, [why])
    assert peer.call("GET", PATH, by=SITE).json()["items"][0]["is_current"] is False
    assert peer.call("GET", f"{PATH}/{number}", by=SITE).json()["metrics"] == BODY["metrics"]


def test_an_association_approved_anew_makes_its_results_current_again(peer: Peer) -> None:
    number = submitted(peer)
    peer.tell(withdrawn(1), version=3)
    peer.tell(facts.association(id=8), version=2)
    assert peer.call("GET", f"{PATH}/{number}", by=SITE).json()["is_current"] is True
    assert due(peer) == [(2, "due"), (4, "accepted")]


# --- who sees what

OF_THE_RUN = ("dataset_id", "dataset_hash", "engine", "engine_reason", "started_at", "finished_at")


def test_the_owners_of_dataset_and_benchmark_see_all(peer: Peer) -> None:
    number = submitted(peer)
    for user in (SITE, COMMITTEE):
        view = peer.call("GET", f"{PATH}/{number}", by=user).json()
        assert view["metrics"] == BODY["metrics"]
        assert all(view[field] is not None for field in OF_THE_RUN)
        assert peer.call("GET", PATH, by=user).json()["items"] == [view]


@pytest.mark.parametrize(("user", "is_admin"), [(MODEL_OWNER, False), (ADMIN, True)])
def test_the_model_owner_and_an_administrator_see_that_there_is_a_result_and_nothing_of_the_site(
    peer: Peer, user: int, is_admin: bool
) -> None:
    number = submitted(peer)
    response = peer.call("GET", f"{PATH}/{number}", by=user, admin=is_admin)
    view = response.json()
    assert (view["benchmark_id"], view["model_id"], view["metrics"]) == (1, 4, None)
    assert all(view[field] is None for field in OF_THE_RUN)
    assert "e" * 64 not in response.text
    assert peer.call("GET", PATH, by=user, admin=is_admin).json()["items"] == [view]


def test_what_is_due_does_not_tell_an_administrator_which_dataset_a_result_is_of(peer: Peer) -> None:
    submitted(peer)
    response = peer.call("GET", f"{DUE}?dataset=1", by=ADMIN, admin=True)
    assert (response.status_code, response.json()["code"]) == (403, "not_allowed")
    assert "the owner of a benchmark that it asked to join" in response.json()["detail"]


def test_others_see_nothing_unless_the_benchmark_makes_its_scores_public(peer: Peer) -> None:
    number = submitted(peer)
    hidden = peer.call("GET", f"{PATH}/{number}", by=STRANGER)
    missing = peer.call("GET", f"{PATH}/77", by=STRANGER)
    assert (hidden.status_code, hidden.json()["code"]) == (404, missing.json()["code"])
    assert peer.call("GET", PATH, by=STRANGER).json()["items"] == []
    peer.tell(facts.benchmark(public_scores=True), version=2)
    for user in (STRANGER, MODEL_OWNER):
        view = peer.call("GET", f"{PATH}/{number}", by=user).json()
        assert view["metrics"] == BODY["metrics"]
        assert all(view[field] is None for field in OF_THE_RUN)
        assert peer.call("GET", PATH, by=user).json()["items"] == [view]
    assert peer.call("GET", f"{PATH}/{number}").json()["code"] == "token_missing"


def test_asking_by_dataset_tells_no_stranger_which_dataset_a_public_result_is_of(peer: Peer) -> None:
    submitted(peer)
    peer.tell(facts.benchmark(public_scores=True), version=2)
    for user, count in ((STRANGER, 0), (MODEL_OWNER, 0), (SITE, 1), (COMMITTEE, 1)):
        assert len(peer.call("GET", f"{PATH}?dataset=1", by=user).json()["items"]) == count
    assert peer.call("GET", f"{PATH}?dataset=1", by=ADMIN, admin=True).json()["items"] == []


def test_lists_are_filtered_and_paged(peer: Peer) -> None:
    peer.tell(facts.dataset(id=2, owner_id=STRANGER))
    peer.tell(facts.association(id=8, part_id=2, part_owner_id=STRANGER))
    one, two = submitted(peer), submitted(peer, REFERENCE)
    three = submitted(peer, BODY | {"dataset_id": 2}, by=STRANGER)
    for query, ids in (
        ("", [one, two, three]),
        ("?model=4", [one, three]),
        ("?dataset=1", [one, two]),
        ("?benchmark=1&model=2", [two]),
        ("?benchmark=2", []),
        ("?owner=me", []),
    ):
        found = peer.call("GET", PATH + query, by=COMMITTEE).json()["items"]
        assert [item["id"] for item in found] == ids
    mine = peer.call("GET", f"{PATH}?owner=me", by=SITE, admin=True).json()["items"]
    assert [item["id"] for item in mine] == [one, two]
    assert peer.call("GET", f"{PATH}?owner=you", by=SITE).status_code == 422
    first = peer.call("GET", f"{PATH}?limit=2", by=COMMITTEE).json()
    assert [item["id"] for item in first["items"]] == [one, two]
    rest = peer.call("GET", f"{PATH}?limit=2&cursor={first['next_cursor']}", by=COMMITTEE).json()
    assert ([item["id"] for item in rest["items"]], rest["next_cursor"]) == ([three], None)


# --- the rest


def test_deliveries_in_any_order_and_doubled_end_the_same(start: Callable[[Definition], Peer]) -> None:
    peer = start(DEFINITION)
    told: list[Envelope] = [
        envelope_of(facts.association(), version=2),
        envelope_of(MODEL_IN, version=2),
        envelope_of(facts.container()),
        envelope_of(facts.container(id=2, owner_id=COMMITTEE, hash="2" * 64)),
        envelope_of(facts.dataset()),
        envelope_of(facts.benchmark()),
    ]
    for envelope in [*told, *reversed(told)]:
        peer.run(peer.bus.publish([envelope]))
    assert due(peer) == [(2, "due"), (4, "due")]
    assert peer.parked() == []


def test_the_consumers_are_the_queues_that_others_bind_to() -> None:
    names: list[Consumer] = list(CONSUMERS)
    assert [consumer.name for consumer in names] == [
        "results.record_benchmark",
        "results.record_container",
        "results.record_dataset",
        "results.record_association",
    ]


def test_the_migrations_make_what_the_tables_say(peer: Peer) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, [KERNEL, metadata]))

    async def compare() -> list[Any]:
        async with peer.service.database.engine.connect() as connection:
            return await connection.run_sync(differences)

    assert peer.run(compare()) == []
