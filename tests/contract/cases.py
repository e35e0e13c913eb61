"""For every endpoint, a request that succeeds for whoever may make it: on a new thing each time."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from contract.whole import ADMIN, COMMITTEE, MODELER, NOBODY, OPERATOR, PASSWORD, SECRET, SITE, STRANGER, Whole
from medperf_contracts.access import ACCESS, SERVICES, Role

OWNED_BY_COMMITTEE = {Role.OWNER: COMMITTEE}
UNKNOWN_EVENT = "00000000-0000-4000-8000-000000000000"
OWNED_BY_SITE = {Role.OWNER: SITE}
SITE_AND_COMMITTEE = {Role.OWNER: SITE, Role.OTHER_SIDE: COMMITTEE}
MODELER_AND_COMMITTEE = {Role.OWNER: MODELER, Role.OTHER_SIDE: COMMITTEE}
COMMITTEE_AND_MODELER = {Role.OWNER: COMMITTEE, Role.OTHER_SIDE: MODELER}
WITH_SIDES = frozenset({Role.OWNER, Role.OTHER_SIDE, Role.ADMINISTRATOR})
OWNER_AND_ADMINISTRATOR = frozenset({Role.OWNER, Role.ADMINISTRATOR})


@dataclass(frozen=True)
class Call:
    """A request without its caller."""

    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """An endpoint on a thing in one situation; `people` are its owner and other side, where it has them."""

    endpoint: str
    make: Callable[[Whole], Call]
    people: Mapping[Role, str] = field(default_factory=dict)
    situation: str = ""
    narrowed_to: frozenset[Role] | None = None
    """Who is admitted in this situation, where that is fewer than the access table admits to the endpoint."""
    success: int = 200

    @property
    def name(self) -> str:
        return f"{self.endpoint} ({self.situation})" if self.situation else self.endpoint

    def who(self, role: Role) -> str | None:
        """The person who has the role towards the thing; None where nobody can."""
        everywhere = {
            Role.NOBODY: NOBODY,
            Role.STRANGER: STRANGER,
            Role.ADMINISTRATOR: ADMIN,
            Role.OPERATOR: OPERATOR,
        }
        return everywhere.get(role) or self.people.get(role)

    def admits(self, role: Role) -> bool:
        """What the access table says."""
        admitted = self.narrowed_to or ACCESS[self.endpoint]
        if Role.NOBODY in admitted or role in admitted:
            return True
        return Role.STRANGER in admitted and role not in {Role.NOBODY, Role.OPERATOR}

    def someone_admitted(self) -> str:
        return next(who for role in Role if self.admits(role) and (who := self.who(role)) is not None)


def _fixed(path: str, body: Any = None) -> Callable[[Whole], Call]:
    return lambda _: Call(path, body)


def _changing(kind: str, thing: Callable[[Whole], int]) -> Callable[[Whole], Call]:
    def make(whole: Whole) -> Call:
        path = f"{kind}/{thing(whole)}"
        version = whole.did(ADMIN, "GET", path)["version"]
        return Call(path, {"is_valid": False}, {"If-Match": f'"{version}"'})

    return make


def _own_password(whole: Whole) -> Call:
    """Whoever changed theirs before has the first one again: the same password is refused."""
    for who in (STRANGER, ADMIN):
        (account,) = whole.did(OPERATOR, "GET", f"users?username={who}")["items"]
        whole.did(OPERATOR, "POST", f"users/{account['id']}/set-password", {"password": PASSWORD})
    return Call(
        "users/me/password",
        {"old_password": PASSWORD, "new_password": f"{PASSWORD}!", "refresh_token": "x" * 40},
    )


def _on(path: str, thing: Callable[[Whole], int], body: Any = None) -> Callable[[Whole], Call]:
    return lambda whole: Call(path.format(thing(whole)), body)


def _container(whole: Whole) -> int:
    return whole.container(COMMITTEE)


def _container_in_development(whole: Whole) -> int:
    return whole.container(COMMITTEE, in_operation=False)


def _benchmark(whole: Whole) -> int:
    return whole.benchmark(COMMITTEE)


def _benchmark_in_development(whole: Whole) -> int:
    return whole.benchmark(COMMITTEE, in_operation=False)


def _benchmark_undecided(whole: Whole) -> int:
    return whole.benchmark(COMMITTEE, approved=False)


def _asking_dataset(whole: Whole) -> int:
    dataset = whole.dataset(SITE)
    whole.request(SITE, whole.closed_scores, dataset=dataset)
    return dataset


def _request(whole: Whole) -> int:
    return whole.request(SITE, whole.closed_scores, dataset=whole.dataset(SITE))


def _request_by_committee(whole: Whole) -> int:
    return whole.request(COMMITTEE, whole.closed_scores, model=whole.container(MODELER))


def _request_by_modeler(whole: Whole) -> int:
    return whole.request(MODELER, whole.closed_scores, model=whole.container(MODELER))


def _notification(whole: Whole) -> int:
    """The site is told of an approval."""
    whole.joined_dataset(whole.closed_scores)
    return int(whole.did(SITE, "GET", "notifications?unread=true")["items"][0]["id"])


DECISION = {"reason": SECRET}
CASES: tuple[Case, ...] = (
    Case("GET /api/v1/server", _fixed("server")),
    Case("POST /api/v1/server/seeding", _fixed("server/seeding", {"demo": "data"}), success=409),
    Case("GET /api/v1/auth/jwks", _fixed("auth/jwks")),
    Case("POST /api/v1/auth/login", _fixed("auth/login", {"username": SITE, "password": PASSWORD})),
    Case(
        "POST /api/v1/auth/refresh",
        lambda whole: Call("auth/refresh", {"refresh_token": whole.log_in(SITE)["refresh_token"]}),
    ),
    Case("POST /api/v1/auth/logout", _fixed("auth/logout", {"refresh_token": "x" * 40}), success=204),
    Case(
        "POST /api/v1/users",
        lambda whole: Call("users", {"username": f"user{whole.dataset(SITE)}", "password": PASSWORD}),
        success=201,
    ),
    Case("GET /api/v1/users", _fixed("users")),
    Case("GET /api/v1/users/me", _fixed("users/me")),
    Case("POST /api/v1/users/me/password", _own_password, success=204),
    *(
        Case(f"POST /api/v1/users/{{user_id}}/{verb}", _on(f"users/{{}}/{verb}", lambda whole: whole.user(), body))
        for verb, body in (
            ("disable", {}),
            ("enable", {}),
            ("make-admin", {}),
            ("set-password", {"password": PASSWORD}),
        )
    ),
    Case("POST /api/v1/containers", lambda whole: Call("containers", whole.new_container()), success=201),
    Case("GET /api/v1/containers", _fixed("containers")),
    Case("GET /api/v1/containers/{container_id}", _on("containers/{}", _container), OWNED_BY_COMMITTEE),
    Case(
        "GET /api/v1/containers/{container_id}",
        _on("containers/{}", _container_in_development),
        OWNED_BY_COMMITTEE,
        "in development",
        OWNER_AND_ADMINISTRATOR,
    ),
    Case(
        "PATCH /api/v1/containers/{container_id}",
        _changing("containers", _container),
        OWNED_BY_COMMITTEE,
    ),
    Case(
        "PATCH /api/v1/containers/{container_id}",
        _changing("containers", _container_in_development),
        OWNED_BY_COMMITTEE,
        "in development",
    ),
    Case(
        "POST /api/v1/containers/{container_id}/set-operational",
        _on("containers/{}/set-operational", _container_in_development),
        OWNED_BY_COMMITTEE,
    ),
    Case(
        "POST /api/v1/benchmarks",
        lambda whole: Call("benchmarks", whole.new_benchmark(COMMITTEE)),
        success=201,
    ),
    Case("GET /api/v1/benchmarks", _fixed("benchmarks")),
    Case("GET /api/v1/benchmarks/{benchmark_id}", _on("benchmarks/{}", _benchmark), OWNED_BY_COMMITTEE),
    Case(
        "GET /api/v1/benchmarks/{benchmark_id}",
        _on("benchmarks/{}", _benchmark_undecided),
        OWNED_BY_COMMITTEE,
        "not approved",
        OWNER_AND_ADMINISTRATOR,
    ),
    Case(
        "PATCH /api/v1/benchmarks/{benchmark_id}",
        _changing("benchmarks", _benchmark),
        OWNED_BY_COMMITTEE,
    ),
    Case(
        "POST /api/v1/benchmarks/{benchmark_id}/set-operational",
        _on("benchmarks/{}/set-operational", _benchmark_in_development),
        OWNED_BY_COMMITTEE,
    ),
    Case(
        "POST /api/v1/benchmarks/{benchmark_id}/approve",
        _on("benchmarks/{}/approve", _benchmark_undecided),
        OWNED_BY_COMMITTEE,
    ),
    Case(
        "POST /api/v1/benchmarks/{benchmark_id}/reject",
        _on("benchmarks/{}/reject", _benchmark_undecided),
        OWNED_BY_COMMITTEE,
    ),
    Case("POST /api/v1/datasets", lambda whole: Call("datasets", whole.new_dataset()), success=201),
    Case("GET /api/v1/datasets", _fixed("datasets")),
    Case("GET /api/v1/datasets/{dataset_id}", _on("datasets/{}", _asking_dataset), SITE_AND_COMMITTEE),
    Case(
        "GET /api/v1/datasets/{dataset_id}",
        _on("datasets/{}", lambda whole: whole.dataset(SITE)),
        SITE_AND_COMMITTEE,
        "asked to join nothing",
        OWNER_AND_ADMINISTRATOR,
    ),
    Case("PATCH /api/v1/datasets/{dataset_id}", _changing("datasets", _asking_dataset), SITE_AND_COMMITTEE),
    Case("POST /api/v1/progress", lambda whole: Call("progress", whole.new_progress(whole.closed_scores))),
    Case("GET /api/v1/progress", _fixed("progress")),
    Case(
        "POST /api/v1/progress/withdraw",
        lambda whole: Call(
            "progress/withdraw", {"benchmark_id": whole.closed_scores, "preparation": str(uuid.uuid4())}
        ),
    ),
    Case(
        "POST /api/v1/associations",
        lambda whole: Call(
            "associations", {"benchmark_id": whole.closed_scores, "model_id": whole.container(MODELER)}
        ),
        MODELER_AND_COMMITTEE,
        "of a model",
        success=201,
    ),
    Case(
        "POST /api/v1/associations",
        lambda whole: Call(
            "associations", {"benchmark_id": whole.closed_scores, "dataset_id": whole.dataset(SITE)}
        ),
        SITE_AND_COMMITTEE,
        "of a dataset",
        frozenset({Role.OWNER}),
        success=201,
    ),
    Case("GET /api/v1/associations", _fixed("associations")),
    Case("GET /api/v1/associations/{association_id}", _on("associations/{}", _request), SITE_AND_COMMITTEE),
    *(
        Case(
            f"POST /api/v1/associations/{{association_id}}/{verb}",
            _on(f"associations/{{}}/{verb}", request, DECISION),
            people,
            situation,
        )
        for verb in ("approve", "reject", "withdraw")
        for request, people, situation in (
            (_request, SITE_AND_COMMITTEE, "asked by the site"),
            (_request_by_committee, COMMITTEE_AND_MODELER, "asked by the committee"),
        )
    ),
    *(
        Case(
            "POST /api/v1/associations/{association_id}/set-priority",
            _on("associations/{}/set-priority", request, {"priority": 5}),
            COMMITTEE_AND_MODELER,
            situation,
        )
        for request, situation in (
            (_request_by_modeler, "asked by its owner"),
            (_request_by_committee, "invited"),
        )
    ),
    Case(
        "POST /api/v1/results",
        lambda whole: Call(
            "results", whole.new_result(whole.closed_scores, whole.joined_dataset(whole.closed_scores))
        ),
        SITE_AND_COMMITTEE,
        success=201,
    ),
    Case("GET /api/v1/results", _fixed("results")),
    Case(
        "GET /api/v1/results/{result_id}",
        _on("results/{}", lambda whole: whole.result(whole.public_scores)),
        SITE_AND_COMMITTEE,
        "scores public",
    ),
    Case(
        "GET /api/v1/results/{result_id}",
        _on("results/{}", lambda whole: whole.result(whole.closed_scores)),
        SITE_AND_COMMITTEE,
        "scores not public",
        WITH_SIDES,
    ),
    Case("GET /api/v1/due", _on("due?dataset={}", _asking_dataset), SITE_AND_COMMITTEE),
    Case("GET /api/v1/notifications", _fixed("notifications")),
    Case(
        "GET /api/v1/notifications/{notification_id}",
        _on("notifications/{}", _notification),
        OWNED_BY_SITE,
    ),
    Case(
        "POST /api/v1/notifications/{notification_id}/read",
        _on("notifications/{}/read", _notification),
        OWNED_BY_SITE,
    ),
    *(Case(f"GET /api/v1/dead-letters/{service}", _fixed(f"dead-letters/{service}")) for service in SERVICES),
    *(
        Case(f"GET /api/v1/dead-letters/{service}/dropped", _fixed(f"dead-letters/{service}/dropped"))
        for service in SERVICES
    ),
    *(
        Case(
            f"GET /api/v1/dead-letters/{service}/story",
            _fixed(f"dead-letters/{service}/story?event_id={UNKNOWN_EVENT}"),
        )
        for service in SERVICES
    ),
    *(
        Case(
            f"POST /api/v1/dead-letters/{service}/drop",
            _fixed(f"dead-letters/{service}/drop", {"event_ids": [UNKNOWN_EVENT], "reason": "a test"}),
        )
        for service in SERVICES
    ),
    *(
        Case(f"POST /api/v1/dead-letters/{service}/replay", _fixed(f"dead-letters/{service}/replay", {}))
        for service in SERVICES
    ),
)
