"""Associations: HTTP in, rows and events out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from medperf_contracts.access import Role
from medperf_contracts.associations import NewAssociation
from medperf_contracts.events import Event
from medperf_contracts.values import Decision, State
from service import facts
from service.facts import ADMIN, COMMITTEE, MODEL_OWNER, SITE, STRANGER
from service.peer import Peer
from services.associations import commands
from services.associations.app import DEFINITION
from services.associations.domain import Association
from services.associations.errors import AlreadyLive
from services.kernel import clock
from services.kernel.auth import Caller
from services.kernel.service import Definition

PATH = "/api/v1/associations"
REQUEST = {"benchmark_id": 1, "dataset_id": 1, "summary": {"metrics": {"auc": 0.9}}}


@pytest.fixture
def peer(start: Callable[[Definition], Peer]) -> Peer:
    """The service, told of an open benchmark, a model and a dataset that fit it."""
    peer = start(DEFINITION)
    peer.tell(facts.benchmark())
    peer.tell(facts.container())
    peer.tell(facts.container(id=2, name="reference", owner_id=COMMITTEE, hash="2" * 64))
    peer.tell(facts.dataset())
    return peer


def requested(peer: Peer, body: dict[str, Any] = REQUEST, *, by: int = SITE) -> int:
    response = peer.call("POST", PATH, body, by=by)
    assert response.status_code == 201, response.text
    return int(response.json()["id"])


def test_a_request_is_pending_until_the_other_side_approves_it(peer: Peer) -> None:
    number = requested(peer)
    assert peer.call("GET", f"{PATH}/{number}", by=COMMITTEE).json()["state"] == "PENDING"
    response = peer.call("POST", f"{PATH}/{number}/approve", {"reason": "fits"}, by=COMMITTEE)
    assert (response.status_code, response.json()["state"]) == (200, "APPROVED")
    assert response.headers["Medperf-Version"] == f"association/{number}@2"
    assert response.json()["reason"] == "fits"
    seen_by_site = peer.call("GET", f"{PATH}/{number}", by=SITE).json()
    assert seen_by_site["decided_by"] == COMMITTEE
    assert seen_by_site["summary"] == REQUEST["summary"]


def test_every_change_records_one_event_with_the_version_after_it_and_no_scores(peer: Peer) -> None:
    number = requested(peer)
    peer.call("POST", f"{PATH}/{number}/approve", {"reason": "a secret reason"}, by=COMMITTEE)
    peer.call("POST", f"{PATH}/{number}/withdraw", {}, by=SITE)
    events = peer.events()
    assert [(event.type, event.subject, event.aggregateversion) for event in events] == [
        ("association.requested.v1", f"association/{number}", 1),
        ("association.approved.v1", f"association/{number}", 2),
        ("association.withdrawn.v1", f"association/{number}", 3),
    ]
    assert events[1].data["state"] == "APPROVED"
    text = "".join(event.model_dump_json() for event in events)
    assert "auc" not in text
    assert "secret" not in text


@pytest.mark.parametrize("verb", ["approve", "reject"])
def test_the_side_that_asked_cannot_decide_on_its_own_request(peer: Peer, verb: str) -> None:
    number = requested(peer)
    response = peer.call("POST", f"{PATH}/{number}/{verb}", {}, by=SITE)
    assert (response.status_code, response.json()["code"]) == (403, "not_allowed")
    assert response.json()["detail"] == f"Only the benchmark's owner may do this with association {number}."
    assert peer.call("GET", f"{PATH}/{number}", by=SITE).json()["state"] == "PENDING"


def test_a_refusal_says_who_may_decide_by_what_they_own(peer: Peer) -> None:
    peer.tell(facts.container())
    invited = requested(peer, {"benchmark_id": 1, "model_id": 4}, by=COMMITTEE)
    refused = peer.call("POST", f"{PATH}/{invited}/approve", {}, by=COMMITTEE)
    assert refused.json()["detail"] == f"Only the model's owner may do this with association {invited}."
    refused = peer.call("POST", f"{PATH}/{invited}/withdraw", {}, by=ADMIN, admin=True)
    both = "the benchmark's owner or the model's owner"
    assert refused.json()["detail"] == f"Only {both} may do this with association {invited}."
    of_model = {"benchmark_id": 1, "model_id": 4}
    for body, who in ((REQUEST, "its owner"), (of_model, "its owner or the benchmark's owner")):
        refused = peer.call("POST", PATH, body, by=ADMIN, admin=True)
        assert refused.json()["detail"].startswith(f"Only {who} may do this with")


def test_an_administrator_sees_a_request_without_the_scores_of_its_compatibility_test(peer: Peer) -> None:
    number = requested(peer)
    for path in (f"{PATH}/{number}", PATH):
        for caller, shows_scores in (({"by": SITE}, True), ({"by": COMMITTEE}, True), ({"by": ADMIN}, False)):
            response = peer.call("GET", path, **caller, admin=caller["by"] == ADMIN)
            assert response.status_code == 200
            assert ("auc" in response.text) is shows_scores


def test_a_stranger_cannot_find_out_that_an_association_exists(peer: Peer) -> None:
    number = requested(peer)
    for method, path, body in (("GET", "", None), ("POST", "/approve", {}), ("POST", "/withdraw", {})):
        response = peer.call(method, f"{PATH}/{number}{path}", body, by=STRANGER)
        assert response.status_code == 404
        missing = peer.call(method, f"{PATH}/777{path}", body, by=STRANGER)
        assert response.json()["code"] == missing.json()["code"]
    assert peer.call("GET", PATH, by=STRANGER).json()["items"] == []
    assert len(peer.call("GET", PATH, by=ADMIN, admin=True).json()["items"]) == 1


def test_a_decided_request_cannot_be_decided_again(peer: Peer) -> None:
    number = requested(peer)
    peer.call("POST", f"{PATH}/{number}/reject", {"reason": "too small"}, by=COMMITTEE)
    response = peer.call("POST", f"{PATH}/{number}/approve", {}, by=COMMITTEE)
    assert (response.status_code, response.json()["code"]) == (409, "already_decided")
    assert peer.call("GET", f"{PATH}/{number}", by=SITE).json()["reason"] == "too small"
    assert "medperf dataset associate --benchmark_uid 1" in response.json()["hint"]
    again = peer.call("POST", f"{PATH}/{number}/reject", {}, by=COMMITTEE).json()["hint"]
    assert again == f"Nothing is left to do; see it with: medperf association view {number}"


def test_an_approval_that_was_a_mistake_is_ended_by_a_withdrawal_and_the_refusal_says_so(peer: Peer) -> None:
    number = requested(peer)
    peer.call("POST", f"{PATH}/{number}/approve", {}, by=COMMITTEE)
    response = peer.call("POST", f"{PATH}/{number}/reject", {}, by=COMMITTEE)
    assert (response.status_code, response.json()["code"]) == (409, "already_decided")
    assert f"medperf association withdraw {number}" in response.json()["hint"]
    assert peer.call("POST", f"{PATH}/{number}/withdraw", {}, by=COMMITTEE).status_code == 200


@pytest.mark.parametrize(("uid", "role"), [(1, "preparation"), (3, "metrics")])
def test_what_prepares_a_benchmarks_data_or_scores_it_cannot_be_its_model(peer: Peer, uid: int, role: str) -> None:
    peer.tell(facts.container(id=uid, hash=str(uid) * 64))
    response = peer.call("POST", PATH, {"benchmark_id": 1, "model_id": uid}, by=MODEL_OWNER)
    assert (response.status_code, response.json()["code"]) == (409, "no_model_of_it")
    assert f"Container {uid} is the {role} container of benchmark 1" in response.json()["detail"]
    assert "medperf model ls" in response.json()["hint"]


def test_a_pair_has_one_live_association_and_may_ask_again_after_a_rejection(peer: Peer) -> None:
    number = requested(peer)
    again = peer.call("POST", PATH, REQUEST, by=SITE)
    assert (again.status_code, again.json()["code"]) == (409, "already_live")
    assert again.json()["existing"] == f"association/{number}"
    peer.call("POST", f"{PATH}/{number}/reject", {}, by=COMMITTEE)
    assert requested(peer) == number + 1


@pytest.mark.parametrize("asked_by", [COMMITTEE, MODEL_OWNER])
def test_the_benchmarks_owner_alone_sets_how_early_a_model_is_run_whoever_asked(peer: Peer, asked_by: int) -> None:
    number = requested(peer, {"benchmark_id": 1, "model_id": 4}, by=asked_by)
    refusals = ((MODEL_OWNER, False, 403), (ADMIN, True, 403), (STRANGER, False, 404), (SITE, False, 404))
    for user, is_admin, status in refusals:
        refused = peer.call("POST", f"{PATH}/{number}/set-priority", {"priority": 5}, by=user, admin=is_admin)
        assert refused.status_code == status
        if status == 403:
            assert refused.json()["detail"] == f"Only the benchmark's owner may do this with association {number}."
    missing = peer.call("POST", f"{PATH}/777/set-priority", {"priority": 5}, by=STRANGER)
    assert missing.json()["code"] == refused.json()["code"]
    assert peer.call("GET", f"{PATH}/{number}", by=COMMITTEE).json()["priority"] == 0

    response = peer.call("POST", f"{PATH}/{number}/set-priority", {"priority": -5}, by=COMMITTEE)
    assert (response.status_code, response.json()["priority"]) == (200, -5)
    assert response.headers["Medperf-Version"] == f"association/{number}@2"
    for user in (COMMITTEE, MODEL_OWNER):
        assert peer.call("GET", PATH, by=user).json()["items"][0]["priority"] == -5


def test_a_priority_is_told_once_with_its_version_and_stays_through_later_decisions(peer: Peer) -> None:
    number = requested(peer, {"benchmark_id": 1, "model_id": 4}, by=MODEL_OWNER)
    for _ in range(2):
        assert peer.call("POST", f"{PATH}/{number}/set-priority", {"priority": 7}, by=COMMITTEE).is_success
    peer.call("POST", f"{PATH}/{number}/approve", {}, by=COMMITTEE)
    peer.call("POST", f"{PATH}/{number}/set-priority", {"priority": 0}, by=COMMITTEE)
    told = [(event.type, event.aggregateversion, event.data["priority"]) for event in peer.events()]
    assert told == [
        ("association.requested.v1", 1, 0),
        ("association.prioritized.v1", 2, 7),
        ("association.approved.v1", 3, 7),
        ("association.prioritized.v1", 4, 0),
    ]
    assert peer.events()[1].data["state"] == "PENDING"


def test_an_association_made_anew_begins_without_the_old_ones_priority(peer: Peer) -> None:
    model = {"benchmark_id": 1, "model_id": 4}
    number = requested(peer, model, by=COMMITTEE)
    peer.call("POST", f"{PATH}/{number}/set-priority", {"priority": 7}, by=COMMITTEE)
    peer.call("POST", f"{PATH}/{number}/withdraw", {}, by=COMMITTEE)
    refused = peer.call("POST", f"{PATH}/{number}/set-priority", {"priority": 8}, by=COMMITTEE)
    assert (refused.status_code, refused.json()["code"]) == (409, "association_over")
    assert "medperf model associate" in refused.json()["hint"]
    anew = requested(peer, model, by=COMMITTEE)
    shown = {item["id"]: item["priority"] for item in peer.call("GET", PATH, by=COMMITTEE).json()["items"]}
    assert shown == {number: 7, anew: 0}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"priority": 1}, 409, "has_no_priority"),
        ({"priority": 1001}, 422, "invalid_input"),
        ({"priority": "high"}, 422, "invalid_input"),
        ({"priority": 1.5}, 422, "invalid_input"),
        ({}, 422, "invalid_input"),
    ],
)
def test_what_is_no_priority_of_a_model_is_refused_and_changes_nothing(
    peer: Peer, body: dict[str, Any], status: int, code: str
) -> None:
    number = requested(peer)
    refused = peer.call("POST", f"{PATH}/{number}/set-priority", body, by=COMMITTEE)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert peer.call("GET", f"{PATH}/{number}", by=COMMITTEE).json()["version"] == 1
    assert [event.type for event in peer.events()] == ["association.requested.v1"]


def test_two_sessions_cannot_both_make_a_pair_live(peer: Peer) -> None:
    """The unique index refuses the second row even where both sessions saw none: the check alone would not."""
    number = requested(peer)

    async def add_a_second() -> None:
        from sqlalchemy import insert, select

        from services.associations.tables import associations

        async with peer.service.database.write() as session:
            row = dict((await session.execute(select(associations))).mappings().one())
            del row["id"]
            await session.execute(insert(associations).values(**row))

    with pytest.raises(Exception, match=r"(?i)unique"):
        peer.run(add_a_second())
    peer.call("POST", f"{PATH}/{number}/reject", {}, by=COMMITTEE)
    assert requested(peer) > number


def test_a_twin_that_the_check_cannot_see_is_refused_by_the_unique_index(peer: Peer) -> None:
    """The twin reaches the table with the new row, after the check: as another session's would at that moment."""
    body = NewAssociation.model_validate(REQUEST)
    site = Caller(SITE, "site", is_admin=False, is_operator=False, admitted=frozenset({Role.OWNER}))
    twin = facts.association().model_dump(exclude={"id"})

    async def request_twice() -> None:
        async with peer.service.database.write() as session:
            now = await clock.now(session)
            session.add(Association(**twin, requested_at=now, decided_at=now, reason="", summary={}))
            await commands.request(session, site, body)

    with pytest.raises(AlreadyLive):
        peer.run(request_twice())
    assert peer.events() == []


def test_a_decision_on_a_stale_version_loses(peer: Peer) -> None:
    """Two sessions hold the same request; the version column lets only one of them decide it."""
    number = requested(peer)

    async def decide_twice() -> None:
        async with peer.service.database.read() as first:
            held = await first.get_one(Association, number)
            first.expunge(held)
        async with peer.service.database.write() as session:
            (await session.get_one(Association, number)).reason = "the first decision"
        async with peer.service.database.write() as session:
            session.add(held)
            held.reason = "the second decision"

    with pytest.raises(Exception, match="expected to update 1 row"):
        peer.run(decide_twice())
    assert peer.call("GET", f"{PATH}/{number}", by=SITE).json()["reason"] == "the first decision"


def test_who_owns_both_sides_is_approved_at_once(peer: Peer) -> None:
    peer.tell(facts.container(id=5, owner_id=COMMITTEE))
    response = peer.call("POST", PATH, {"benchmark_id": 1, "model_id": 5}, by=COMMITTEE)
    assert response.json()["state"] == "APPROVED"
    assert [event.type for event in peer.events()] == ["association.approved.v1"]


def test_the_benchmarks_owner_may_invite_a_model_and_then_its_owner_decides(peer: Peer) -> None:
    number = requested(peer, {"benchmark_id": 1, "model_id": 4}, by=COMMITTEE)
    assert peer.call("POST", f"{PATH}/{number}/approve", {}, by=COMMITTEE).status_code == 403
    assert peer.call("POST", f"{PATH}/{number}/approve", {}, by=MODEL_OWNER).json()["state"] == "APPROVED"


def test_only_its_owner_may_offer_a_dataset(peer: Peer) -> None:
    for user in (COMMITTEE, STRANGER):
        assert peer.call("POST", PATH, REQUEST, by=user).status_code == 404
    response = peer.call("POST", PATH, {"benchmark_id": 1, "model_id": 4}, by=STRANGER)
    assert response.status_code == 403


NOT_FITTING: list[tuple[str, Callable[[Peer], Any], dict[str, Any], int]] = [
    (
        "benchmark_not_open",
        lambda peer: peer.tell(facts.benchmark(state=State.DEVELOPMENT), version=2),
        {"benchmark_id": 1, "model_id": 4},
        COMMITTEE,
    ),
    (
        "benchmark_not_open",
        lambda peer: peer.tell(facts.benchmark(approval=Decision.PENDING), version=2),
        {"benchmark_id": 1, "model_id": 4},
        COMMITTEE,
    ),
    ("benchmark_not_open", lambda peer: peer.tell(facts.benchmark(is_valid=False), version=2), REQUEST, SITE),
    ("part_not_ready", lambda peer: peer.tell(facts.dataset(is_valid=False), version=2), REQUEST, SITE),
    (
        "prepared_differently",
        lambda peer: peer.tell(facts.dataset(preparation_hash="b" * 64), version=2),
        REQUEST,
        SITE,
    ),
    (
        "part_not_ready",
        lambda peer: peer.tell(facts.container(state=State.DEVELOPMENT), version=2),
        {"benchmark_id": 1, "model_id": 4},
        MODEL_OWNER,
    ),
    ("needs_no_association", lambda peer: None, {"benchmark_id": 1, "model_id": 2}, COMMITTEE),
]


@pytest.mark.parametrize(("code", "arrange", "body", "by"), NOT_FITTING)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    peer: Peer, code: str, arrange: Callable[[Peer], Any], body: dict[str, Any], by: int
) -> None:
    arrange(peer)
    response = peer.call("POST", PATH, body, by=by)
    assert (response.status_code, response.json()["code"]) == (409, code)
    assert response.json()["hint"]
    assert peer.events() == []
    assert peer.call("GET", PATH, by=by).json()["items"] == []


@pytest.mark.parametrize(
    ("hidden", "body", "by"),
    [
        (facts.benchmark(state=State.DEVELOPMENT), REQUEST, SITE),
        (facts.benchmark(approval=Decision.REJECTED), REQUEST, SITE),
        (facts.container(state=State.DEVELOPMENT), {"benchmark_id": 1, "model_id": 4}, STRANGER),
        (facts.container(state=State.DEVELOPMENT), {"benchmark_id": 1, "model_id": 4}, COMMITTEE),
    ],
)
def test_what_is_not_shown_to_a_person_is_as_if_it_were_not_there(
    peer: Peer, hidden: Event, body: dict[str, Any], by: int
) -> None:
    missing = {**body, "benchmark_id": 777} if hidden.KIND == "benchmark" else {**body, "model_id": 777}
    there_is_none = peer.call("POST", PATH, missing, by=by)
    peer.tell(hidden, version=2)
    response = peer.call("POST", PATH, body, by=by)
    assert response.status_code == there_is_none.status_code == 404
    assert response.json()["detail"] == there_is_none.json()["detail"].replace("777", str(hidden.id))


@pytest.mark.parametrize(
    ("gone", "code"),
    [
        (facts.benchmark(is_valid=False), "benchmark_not_open"),
        (facts.dataset(is_valid=False), "part_not_ready"),
    ],
)
def test_what_no_longer_fits_cannot_be_approved_but_can_be_rejected(peer: Peer, gone: Event, code: str) -> None:
    number = requested(peer)
    peer.tell(gone, version=2)
    response = peer.call("POST", f"{PATH}/{number}/approve", {}, by=COMMITTEE)
    assert (response.status_code, response.json()["code"]) == (409, code)
    assert peer.call("GET", f"{PATH}/{number}", by=COMMITTEE).json()["state"] == "PENDING"
    assert peer.call("POST", f"{PATH}/{number}/reject", {}, by=COMMITTEE).json()["state"] == "REJECTED"


@pytest.mark.parametrize(
    ("fact", "body", "by", "code"),
    [
        (facts.benchmark, REQUEST, SITE, "benchmark_not_open"),
        (facts.dataset, REQUEST, SITE, "part_not_ready"),
        (facts.container, {"benchmark_id": 1, "model_id": 4}, MODEL_OWNER, "part_not_ready"),
    ],
)
def test_an_older_event_never_replaces_a_newer_copy(
    peer: Peer, fact: Callable[..., Event], body: dict[str, Any], by: int, code: str
) -> None:
    peer.tell(fact(is_valid=False), version=3)
    peer.tell(fact(), version=2)
    assert peer.call("POST", PATH, body, by=by).json()["code"] == code
    peer.tell(fact(), version=4)
    assert peer.call("POST", PATH, body, by=by).status_code == 201


def test_the_same_data_of_two_owners_is_shown_to_the_benchmarks_owner_only(peer: Peer) -> None:
    peer.tell(facts.dataset(id=2, owner_id=STRANGER))
    first = requested(peer)
    second = requested(peer, {"benchmark_id": 1, "dataset_id": 2}, by=STRANGER)
    seen = {item["id"]: item["same_data_as"] for item in peer.call("GET", PATH, by=COMMITTEE).json()["items"]}
    assert seen == {first: [2], second: [1]}
    assert peer.call("GET", f"{PATH}/{first}", by=SITE).json()["same_data_as"] == []


def test_lists_are_filtered_and_paged(peer: Peer) -> None:
    dataset_one = requested(peer)
    model = requested(peer, {"benchmark_id": 1, "model_id": 4}, by=MODEL_OWNER)
    first = peer.call("GET", f"{PATH}?limit=1", by=COMMITTEE).json()
    assert [item["id"] for item in first["items"]] == [dataset_one]
    rest = peer.call("GET", f"{PATH}?limit=1&cursor={first['next_cursor']}", by=COMMITTEE).json()
    assert ([item["id"] for item in rest["items"]], rest["next_cursor"]) == ([model], None)
    for query, ids in (
        ("dataset=1", [dataset_one]),
        ("model=4", [model]),
        ("state=APPROVED", []),
        ("benchmark=2", []),
    ):
        found = peer.call("GET", f"{PATH}?{query}", by=COMMITTEE).json()["items"]
        assert [item["id"] for item in found] == ids
