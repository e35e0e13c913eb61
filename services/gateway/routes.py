"""The one front door: which service answers which address.

Rendered as the proxy's configuration for a deployment, used as it is by the embedded server.
"""

from __future__ import annotations

from medperf_contracts.access import ACCESS, Role

API = "/api/v1"
# What registered URLs of additional files and demo data begin with.
ASSETS = "/assets"
# Never a type that a browser would show or run.
ASSET_MEDIA_TYPE = "application/octet-stream"

ROUTES: dict[str, str] = {
    f"{API}/server": "accounts",
    f"{API}/auth": "accounts",
    f"{API}/users": "accounts",
    f"{API}/containers": "registry",
    f"{API}/benchmarks": "registry",
    f"{API}/datasets": "registry",
    f"{API}/progress": "registry",
    f"{API}/associations": "associations",
    f"{API}/results": "results",
    f"{API}/due": "results",
    f"{API}/notifications": "notifications",
    f"{API}/openapi/accounts.json": "accounts",
    f"{API}/openapi/registry.json": "registry",
    f"{API}/openapi/associations.json": "associations",
    f"{API}/openapi/results.json": "results",
    f"{API}/openapi/notifications.json": "notifications",
    f"{API}/dead-letters/accounts": "accounts",
    f"{API}/dead-letters/registry": "registry",
    f"{API}/dead-letters/associations": "associations",
    f"{API}/dead-letters/results": "results",
    f"{API}/dead-letters/notifications": "notifications",
}


def service_of(path: str) -> str | None:
    """The service that answers a path, by whole segments; None if there is none."""
    for prefix, service in ROUTES.items():
        if path == prefix or path.startswith(f"{prefix}/"):
            return service
    return None


def from_outside() -> dict[str, str]:
    """The routes of a deployment: without those of which every endpoint is the operator's alone.

    No operator's token exists there: operators work where the databases are, not through the front door.
    """
    return {prefix: service for prefix, service in ROUTES.items() if not _is_operators(prefix)}


def _is_operators(prefix: str) -> bool:
    admitted = [
        roles
        for endpoint, roles in ACCESS.items()
        if (path := endpoint.partition(" ")[2]) == prefix or path.startswith(f"{prefix}/")
    ]
    return bool(admitted) and all(roles == {Role.OPERATOR} for roles in admitted)
