"""Who may call what: the one table. Every endpoint is in it, and the services look it up at each request.

A role is what a caller is to the thing that the request is about. `STRANGER` is anybody who is logged in, so an
endpoint open to strangers is open to every role but `NOBODY` and `OPERATOR`. A list that strangers may ask for
holds only what its caller may see. Who is not a thing's owner, other side or administrator, and may not see it,
is answered 404; who may see it but not do this is answered 403.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Role(StrEnum):
    """What a caller is to a thing."""

    NOBODY = "nobody"
    STRANGER = "stranger"
    OWNER = "owner"
    OTHER_SIDE = "other side"
    ADMINISTRATOR = "administrator"
    OPERATOR = "operator"


_ANYBODY = frozenset({Role.NOBODY, Role.STRANGER})
_LOGGED_IN = frozenset({Role.STRANGER})
_OWNER = frozenset({Role.OWNER})
_OWNER_OR_ADMINISTRATOR = frozenset({Role.OWNER, Role.ADMINISTRATOR})
_BOTH_SIDES = frozenset({Role.OWNER, Role.OTHER_SIDE, Role.ADMINISTRATOR})
_EITHER_SIDE = frozenset({Role.OWNER, Role.OTHER_SIDE})
_ADMINISTRATOR = frozenset({Role.ADMINISTRATOR})
_OPERATOR = frozenset({Role.OPERATOR})
SERVICES = ("accounts", "registry", "associations", "results", "notifications")

ACCESS: Mapping[str, frozenset[Role]] = {
    # accounts
    "GET /api/v1/server": _ANYBODY,
    "POST /api/v1/server/seeding": _OPERATOR,
    "GET /api/v1/auth/jwks": _ANYBODY,
    "POST /api/v1/auth/login": _ANYBODY,
    "POST /api/v1/auth/refresh": _ANYBODY,
    "POST /api/v1/auth/logout": _LOGGED_IN,
    "POST /api/v1/users": _OPERATOR,
    "GET /api/v1/users": frozenset({Role.ADMINISTRATOR, Role.OPERATOR}),
    "GET /api/v1/users/me": _LOGGED_IN,
    "POST /api/v1/users/me/password": _LOGGED_IN,
    "POST /api/v1/users/{user_id}/disable": _OPERATOR,
    "POST /api/v1/users/{user_id}/enable": _OPERATOR,
    "POST /api/v1/users/{user_id}/make-admin": _OPERATOR,
    "POST /api/v1/users/{user_id}/set-password": _OPERATOR,
    # registry: a container or benchmark in development is seen by its owner and administrators only
    "POST /api/v1/containers": _LOGGED_IN,
    "GET /api/v1/containers": _LOGGED_IN,
    "GET /api/v1/containers/{container_id}": _LOGGED_IN,
    "PATCH /api/v1/containers/{container_id}": _OWNER_OR_ADMINISTRATOR,
    "POST /api/v1/containers/{container_id}/set-operational": _OWNER,
    "POST /api/v1/benchmarks": _LOGGED_IN,
    "GET /api/v1/benchmarks": _LOGGED_IN,
    "GET /api/v1/benchmarks/{benchmark_id}": _LOGGED_IN,
    "PATCH /api/v1/benchmarks/{benchmark_id}": _OWNER_OR_ADMINISTRATOR,
    "POST /api/v1/benchmarks/{benchmark_id}/set-operational": _OWNER,
    "POST /api/v1/benchmarks/{benchmark_id}/approve": _ADMINISTRATOR,
    "POST /api/v1/benchmarks/{benchmark_id}/reject": _ADMINISTRATOR,
    # a dataset's other side: the owner of a benchmark that it asked to join
    "POST /api/v1/datasets": _LOGGED_IN,
    "GET /api/v1/datasets": _LOGGED_IN,
    "GET /api/v1/datasets/{dataset_id}": _BOTH_SIDES,
    "PATCH /api/v1/datasets/{dataset_id}": _OWNER_OR_ADMINISTRATOR,
    # how far a preparation is, which the site that prepares tells the benchmark's owner and nobody else
    "POST /api/v1/progress": _LOGGED_IN,
    "GET /api/v1/progress": _LOGGED_IN,
    "POST /api/v1/progress/withdraw": _LOGGED_IN,
    # associations: the owner is the side that asked, the other side decides
    "POST /api/v1/associations": _EITHER_SIDE,
    "GET /api/v1/associations": _LOGGED_IN,
    "GET /api/v1/associations/{association_id}": _BOTH_SIDES,
    "POST /api/v1/associations/{association_id}/approve": frozenset({Role.OTHER_SIDE}),
    "POST /api/v1/associations/{association_id}/reject": frozenset({Role.OTHER_SIDE}),
    "POST /api/v1/associations/{association_id}/withdraw": _EITHER_SIDE,
    # in which order models run is the benchmark's: here its owner is the owner, whoever asked
    "POST /api/v1/associations/{association_id}/set-priority": _OWNER,
    # results: the owner is the dataset's owner, the other side the benchmark's owner. Administrators do not
    # learn which dataset a result is of, which the list of what is due tells.
    "POST /api/v1/results": _OWNER,
    "GET /api/v1/results": _LOGGED_IN,
    "GET /api/v1/results/{result_id}": _LOGGED_IN,
    "GET /api/v1/due": _EITHER_SIDE,
    # notifications
    "GET /api/v1/notifications": _LOGGED_IN,
    "GET /api/v1/notifications/{notification_id}": _OWNER,
    "POST /api/v1/notifications/{notification_id}/read": _OWNER,
    # every service's messages that do not get through
    **{f"GET /api/v1/dead-letters/{service}": _OPERATOR for service in SERVICES},
    **{f"GET /api/v1/dead-letters/{service}/dropped": _OPERATOR for service in SERVICES},
    **{f"GET /api/v1/dead-letters/{service}/story": _OPERATOR for service in SERVICES},
    **{f"POST /api/v1/dead-letters/{service}/replay": _OPERATOR for service in SERVICES},
    **{f"POST /api/v1/dead-letters/{service}/drop": _OPERATOR for service in SERVICES},
}
