"""How far preparations are: told by sites to benchmarks' owners, HTTP in, rows out."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.access import Role
from medperf_contracts.registry import STAGES_MOST, NewProgress
from service.facts import ADMIN, COMMITTEE, SITE, STRANGER
from service.peer import Peer, done, made, refused
from services.kernel.auth import Caller
from services.kernel.errors import ChangedMeanwhile
from services.kernel.service import Definition
from services.registry import commands
from services.registry.app import DEFINITION
from services.registry.domain.benchmarks import Benchmark
from services.registry.domain.progress import Progress

PROGRESS = "/api/v1/progress"
PREPARATION = "3b241101-e2bb-4255-8caf-4136c566a962"
HALFWAY = [{"stage": 2, "cases": 14}, {"stage": -1.1, "cases": 3}, {"stage": None, "cases": 1}]
NEARLY = [{"stage": 3, "cases": 17}, {"stage": -1.1, "cases": 1}]
TOLD = {"benchmark_id": 1, "preparation": PREPARATION, "stages": HALFWAY}


@pytest.fixture
def peer(start: Callable[[Definition], Peer]) -> Peer:
    """The service with the committee's benchmark 1, which is open, and its benchmark 2, which is not."""
    peer = start(DEFINITION)
    for name in ("preparation", "reference", "metrics", "other reference"):
        number = made(
            peer.call("POST", "/api/v1/containers", {"name": name, "manifest": f"name: {name}\n"}, by=COMMITTEE)
        )
        done(peer.call("POST", f"/api/v1/containers/{number}/set-operational", by=COMMITTEE))
    parts = {"preparation_id": 1, "metrics_id": 3}
    for number, reference in ((1, 2), (2, 4)):
        body = {"name": f"chest {number}", "reference_model_id": reference, **parts}
        assert made(peer.call("POST", "/api/v1/benchmarks", body, by=COMMITTEE)) == number
    done(peer.call("POST", "/api/v1/benchmarks/1/set-operational", by=COMMITTEE))
    done(peer.call("POST", "/api/v1/benchmarks/1/approve", by=ADMIN, admin=True))
    return peer


def told(peer: Peer, *, by: int, admin: bool = False, query: str = "") -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = done(peer.call("GET", f"{PROGRESS}{query}", by=by, admin=admin))["items"]
    return items


def test_what_a_site_tells_is_shown_to_it_and_to_the_benchmarks_owner_and_to_nobody_else(peer: Peer) -> None:
    response = peer.call("POST", PROGRESS, TOLD, by=SITE)
    assert response.headers["Medperf-Version"].startswith("progress/1@")
    assert set(done(response)) == {"id", "version"}
    [shown] = told(peer, by=SITE)
    assert (shown["benchmark_id"], shown["owner_id"], shown["owner_name"]) == (1, SITE, f"user{SITE}")
    assert (shown["stages"], shown["preparation"]) == (HALFWAY, PREPARATION)
    assert told(peer, by=COMMITTEE) == [shown]
    assert told(peer, by=STRANGER) == told(peer, by=ADMIN, admin=True) == []


def test_what_is_told_later_takes_the_place_of_what_was_told_before(peer: Peer) -> None:
    first = done(peer.call("POST", PROGRESS, TOLD, by=SITE))
    then = done(peer.call("POST", PROGRESS, TOLD | {"stages": NEARLY}, by=SITE))
    assert (then["id"], then["version"] > first["version"]) == (first["id"], True)
    assert [one["stages"] for one in told(peer, by=COMMITTEE)] == [NEARLY]


def test_another_site_with_the_same_number_has_a_progress_of_its_own(peer: Peer) -> None:
    done(peer.call("POST", PROGRESS, TOLD, by=SITE))
    done(peer.call("POST", PROGRESS, TOLD | {"stages": NEARLY}, by=STRANGER))
    assert [(one["owner_id"], one["stages"]) for one in told(peer, by=COMMITTEE)] == [
        (SITE, HALFWAY),
        (STRANGER, NEARLY),
    ]
    assert [one["owner_id"] for one in told(peer, by=SITE)] == [SITE]


def test_the_filters_keep_what_they_name(peer: Peer) -> None:
    done(peer.call("POST", PROGRESS, TOLD, by=SITE))
    done(peer.call("POST", PROGRESS, TOLD | {"benchmark_id": 2, "preparation": str(uuid.uuid4())}, by=COMMITTEE))
    assert [one["id"] for one in told(peer, by=COMMITTEE)] == [1, 2]
    assert [one["id"] for one in told(peer, by=COMMITTEE, query="?benchmark=1")] == [1]
    assert [one["id"] for one in told(peer, by=COMMITTEE, query="?owner=me")] == [2]
    assert told(peer, by=SITE, query="?benchmark=2") == []


def test_of_a_benchmark_that_a_site_may_not_see_nothing_is_told(peer: Peer) -> None:
    for number in (2, 99):
        refused(peer.call("POST", PROGRESS, TOLD | {"benchmark_id": number}, by=SITE), 404, "no_such_thing")
    assert told(peer, by=COMMITTEE) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"stages": []},
        {"stages": [{"stage": number, "cases": 1} for number in range(STAGES_MOST + 1)]},
        {"stages": [{"stage": 2, "cases": 1}, {"stage": 2.0, "cases": 1}]},
        {"stages": [{"stage": None, "cases": 1}, {"stage": None, "cases": 1}]},
        {"stages": [{"stage": 2.25, "cases": 1}]},
        {"stages": [{"stage": 100, "cases": 1}]},
        {"stages": [{"stage": -100, "cases": 1}]},
        {"stages": [{"stage": "Annotated", "cases": 1}]},
        {"stages": [{"stage": 2, "cases": 0}]},
        {"stages": [{"stage": 2, "cases": 10**9 + 1}]},
        {"stages": [{"stage": 2, "cases": 1, "name": "Annotated"}]},
        {"stages": [{"stage": "2", "cases": 1}]},
        {"stages": [{"stage": True, "cases": 1}]},
        {"stages": [{"stage": 2, "cases": "3"}]},
        {"preparation": "patient 17"},
        {"comment": "patient 17"},
    ],
    ids=str,
)
def test_nothing_but_numbers_of_stages_is_taken(peer: Peer, changed: dict[str, Any]) -> None:
    refused(peer.call("POST", PROGRESS, TOLD | changed, by=SITE), 422, "invalid_input")
    assert told(peer, by=SITE) == []


WITHDRAWN = {"benchmark_id": 1, "preparation": PREPARATION}


def test_what_is_taken_back_is_gone_for_good_also_what_is_late_on_its_way(peer: Peer) -> None:
    done(peer.call("POST", PROGRESS, TOLD, by=SITE))
    for _ in range(2):
        done(peer.call("POST", f"{PROGRESS}/withdraw", WITHDRAWN, by=SITE))
        assert told(peer, by=COMMITTEE) == told(peer, by=SITE) == []
        refused(peer.call("POST", PROGRESS, TOLD | {"stages": NEARLY}, by=SITE), 409, "progress_withdrawn")
    assert told(peer, by=COMMITTEE) == []
    # Told anew it is another.
    done(peer.call("POST", PROGRESS, TOLD | {"preparation": str(uuid.uuid4())}, by=SITE))
    assert [one["stages"] for one in told(peer, by=COMMITTEE)] == [HALFWAY]


def test_it_can_be_taken_back_before_it_arrives(peer: Peer) -> None:
    done(peer.call("POST", f"{PROGRESS}/withdraw", WITHDRAWN, by=SITE))
    refused(peer.call("POST", PROGRESS, TOLD, by=SITE), 409, "progress_withdrawn")
    assert told(peer, by=COMMITTEE) == []


def test_nobody_takes_back_what_another_told(peer: Peer) -> None:
    done(peer.call("POST", PROGRESS, TOLD, by=SITE))
    for other in (COMMITTEE, STRANGER):
        done(peer.call("POST", f"{PROGRESS}/withdraw", WITHDRAWN, by=other))
    assert [one["owner_id"] for one in told(peer, by=COMMITTEE)] == [SITE]


@pytest.mark.only_on("sqlite", because="it reads the database's file")
def test_nothing_of_what_is_taken_back_is_kept_not_even_in_the_answers_of_before(peer: Peer) -> None:
    stages = [{"stage": 77.7, "cases": 123_456_789}]

    async def kept() -> str:
        async with peer.service.database.read() as session:
            rows = []
            for table in ("progress", "idempotency_key", "outbox"):
                rows += (await session.execute(text(f"SELECT * FROM {table}"))).all()
            return str(rows)

    done(peer.call("POST", PROGRESS, TOLD | {"stages": stages}, by=SITE))
    assert "123456789" in peer.run(kept())
    done(peer.call("POST", f"{PROGRESS}/withdraw", WITHDRAWN, by=SITE))
    assert "123456789" not in peer.run(kept())


def test_one_person_cannot_tell_of_preparations_without_end(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "PROGRESS_MOST", 2)
    for _ in range(2):
        body = TOLD | {"preparation": str(uuid.uuid4())}
        done(peer.call("POST", PROGRESS, body, by=SITE))
    refused(peer.call("POST", PROGRESS, TOLD, by=SITE), 409, "too_many_preparations")
    done(peer.call("POST", PROGRESS, body | {"stages": NEARLY}, by=SITE))
    done(peer.call("POST", PROGRESS, TOLD, by=STRANGER))
    # As the refusal advises.
    done(peer.call("POST", f"{PROGRESS}/withdraw", WITHDRAWN | {"preparation": body["preparation"]}, by=SITE))
    done(peer.call("POST", PROGRESS, TOLD, by=SITE))


def test_what_is_told_to_one_benchmarks_owner_is_not_taken_from_anothers(peer: Peer) -> None:
    for_its_own = TOLD | {"benchmark_id": 2, "stages": NEARLY}
    done(peer.call("POST", PROGRESS, TOLD, by=COMMITTEE))
    done(peer.call("POST", PROGRESS, for_its_own, by=COMMITTEE))
    assert [(one["benchmark_id"], one["stages"]) for one in told(peer, by=COMMITTEE)] == [
        (1, HALFWAY),
        (2, NEARLY),
    ]


def test_no_event_tells_of_it(peer: Peer) -> None:
    recorded = peer.events()
    done(peer.call("POST", PROGRESS, TOLD, by=SITE))
    done(peer.call("POST", f"{PROGRESS}/withdraw", WITHDRAWN, by=SITE))
    assert peer.events() == recorded


def test_a_twin_that_the_look_cannot_see_is_refused_by_the_unique_index(peer: Peer) -> None:
    site = Caller(SITE, "site", is_admin=False, is_operator=False, admitted=frozenset({Role.STRANGER}))
    new = NewProgress.model_validate(TOLD)

    async def beside_its_twin(session: AsyncSession) -> None:
        benchmark = await session.get_one(Benchmark, 1)
        at = datetime(2026, 1, 1, tzinfo=UTC)
        session.add(Progress.begin(new.preparation, benchmark=benchmark, by=SITE, owner_name="site", at=at))
        await commands.tell_progress(session, site, new)

    async def tell() -> None:
        async with peer.service.database.write() as session:
            await beside_its_twin(session)

    with pytest.raises(ChangedMeanwhile):
        peer.run(tell())
    assert told(peer, by=SITE) == []
