"""The one front door: which service answers which address.

Rendered as the proxy's configuration for a deployment, used as it is by the embedded server.
"""

from __future__ import annotations

API = "/api/v1"
# What registered URLs of additional files and demo data begin with.
ASSETS = "/assets"

ROUTES: dict[str, str] = {
    f"{API}/server": "accounts",
    f"{API}/auth": "accounts",
    f"{API}/users": "accounts",
    f"{API}/containers": "registry",
    f"{API}/benchmarks": "registry",
    f"{API}/datasets": "registry",
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
