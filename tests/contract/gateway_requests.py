"""Requests to the front door, with the answer that each must get: by nginx and by the embedded gateway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from medperf_contracts.bounds import BODY_BYTES_MOST
from medperf_contracts.problems import MEDIA_TYPE
from services.gateway.admission import HEAD_LINE_BYTES_MOST
from services.gateway.routes import ASSET_MEDIA_TYPE
from services.gateway.routes import ROUTES as ALL_ROUTES

JSON = "application/json"
ASSET, ASSET_CONTENT = "asset.tar.gz", b"an archive"
LOGIN = "/api/v1/auth/login"
CONTAINERS = "/api/v1/containers"
ADA_LOGIN = b'{"username": "ada", "password": "sesame-sesame"}'
FOLDER, LINK, PARTIAL = "folder", "link", ".new-1234"


@dataclass(frozen=True)
class Ask:
    """A request as it goes over the wire, and its answer."""

    method: str
    target: str
    status: int
    code: str | None = None
    """Of the problem document; None where the answer is none."""
    media: str = MEDIA_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    is_chunked: bool = False
    is_logged_in: bool = False
    name: str = ""

    def __str__(self) -> str:
        return self.name or f"{self.method} {self.target}"


def _found() -> Iterator[Ask]:
    yield Ask("GET", "/api/v1/server", 200, media=JSON)
    yield Ask("GET", "/api/v1/%73erver", 200, media=JSON)
    yield Ask("GET", "/api/v1/auth/jwks", 200, media=JSON)
    yield Ask("GET", CONTAINERS, 200, media=JSON, is_logged_in=True)
    yield Ask("POST", LOGIN, 200, media=JSON, headers={"Content-Type": JSON}, body=ADA_LOGIN)
    for service in ("accounts", "registry", "associations", "results", "notifications"):
        yield Ask("GET", f"/api/v1/openapi/{service}.json", 200, media=JSON)
    yield Ask("GET", f"/assets/{ASSET}", 200, media=ASSET_MEDIA_TYPE)
    yield Ask("HEAD", f"/assets/{ASSET}", 200, media=ASSET_MEDIA_TYPE)
    yield Ask("GET", f"/assets/{ASSET}?x=1", 200, media=ASSET_MEDIA_TYPE)
    yield Ask(
        "GET", f"/assets/{ASSET}", 206, media=ASSET_MEDIA_TYPE, headers={"Range": "bytes=3-5"}, name="a part"
    )
    yield Ask(
        "GET", "/api/v1/server", 200, media=JSON, headers={"Host": "elsewhere.example"}, name="any host's name"
    )


def _not_there() -> Iterator[Ask]:
    for target in (
        "/",
        "/?x=1",
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v1/nothing",
        "/api/v2/server",
        "/API/v1/server",
        "/api/v1/containersX",
        "/api/v1/containers.json",
        "/api/v1/serve",
        "/api/v1/server/",
        "/api/v1/server/more",
        "/api/v1/containers/",
        "/api/v1/containers/1/",
        "/api/v1/openapi",
        "/api/v1/openapi/",
        "/api/v1/openapi/gateway.json",
        "/api/v1/openapi/registryXjson",
        "/api/v1/openapi/registry.json/",
        "/api/v1/dead-letters",
        "/openapi.json",
        "/docs",
        "/metrics",
        "/live",
        "/ready",
        "/api/v1/metrics",
        "/api/v1/live",
        "/problems/bad_request",
        "/assets",
        "/assets/",
        "/assets/nothing",
        f"/assets/{FOLDER}",
        f"/assets/{FOLDER}/",
        f"/assets/{LINK}",
        f"/assets/{PARTIAL}",
        f"/assets/{'x' * 300}",
        "/assetsX",
        "/assets/%ff",
        "/assets/a%0ab",
    ):
        yield Ask("GET", target, 404, "no_such_address")
    yield Ask("POST", "/api/v1/nothing", 404, "no_such_address", body=b"{}")
    yield Ask("POST", f"{LOGIN}/", 404, "no_such_address", headers={"Content-Type": JSON}, body=ADA_LOGIN)
    yield Ask("HEAD", "/api/v1/nothing", 404, "no_such_address")
    yield Ask("OPTIONS", "/api/v1/nothing", 404, "no_such_address")
    yield Ask("GET", f"{CONTAINERS}/9", 404, "no_such_thing", is_logged_in=True)


def _not_plain() -> Iterator[Ask]:
    for target in (
        "//api/v1/server",
        "/api//v1/server",
        "/api/v1/server//",
        "/api/v1/./server",
        "/api/v1/server/.",
        "/api/v1/server/..",
        "/api/v1/server/..?x=1",
        "/assets/../api/v1/server",
        "/api/v1/containers/../dead-letters/registry",
        "/api/v1/dead-letters/../server",
        "/../etc/passwd",
        "/assets/../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/etc/passwd",
        "/assets/%2E./etc/passwd",
        "/assets/..%2f..%2fetc/passwd",
        "/assets%2fasset.tar.gz",
        "/api/v1/containers%2F1",
        "/assets/..%5c..%5cetc",
        "/assets/a\\b",
        "/%00",
        "/assets/%00",
        "/api/v1/containers/%00",
    ):
        yield Ask("GET", target, 400, "bad_request")
    yield Ask("GET", "/api/v1/server", 400, "bad_request", headers={"Host": "a/b"}, name="a host with a slash")


def _wrong_method() -> Iterator[Ask]:
    for method in ("HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"):
        yield Ask(method, "/api/v1/server", 405, "method_not_allowed")
    yield Ask("GET", LOGIN, 405, "method_not_allowed")
    yield Ask("DELETE", f"{CONTAINERS}/1", 405, "method_not_allowed")
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        yield Ask(method, f"/assets/{ASSET}", 405, "method_not_allowed")


def _too_much() -> Iterator[Ask]:
    large, fitting = b" " * (BODY_BYTES_MOST + 1), b" " * BODY_BYTES_MOST
    for is_chunked in (False, True):
        how = "in chunks" if is_chunked else "with its length"
        yield Ask("POST", LOGIN, 413, "body_too_large", body=large, is_chunked=is_chunked, name=f"too large {how}")
        yield Ask("POST", LOGIN, 400, "invalid_document", body=fitting, is_chunked=is_chunked, name=f"fits {how}")
    long = "x" * (HEAD_LINE_BYTES_MOST + 100)
    yield Ask("GET", f"/api/v1/{long}", 414, "address_too_long", name="a long path")
    yield Ask("GET", f"{CONTAINERS}?cursor={long}", 414, "address_too_long", name="a long query")
    yield Ask("GET", "/api/v1/server", 431, "headers_too_large", headers={"X-Long": long}, name="a long header")
    yield Ask(
        "GET",
        "/api/v1/users/me",
        431,
        "headers_too_large",
        headers={"Authorization": f"Bearer {long}"},
        name="a token",
    )


def _refused_by_a_service() -> Iterator[Ask]:
    yield Ask("GET", CONTAINERS, 401, "token_missing")
    old = {"Medperf-Client": "medperf/0.0.9"}
    for method, target in (("GET", "/api/v1/server"), ("GET", f"{CONTAINERS}/1"), ("POST", LOGIN)):
        yield Ask(method, target, 426, "client_too_old", headers=old, name=f"an old client: {method} {target}")
    for said in ("medperf/0.1.0", "medperf/1.0.0", "curl/7", "medperf/old", "medperf-server/0.0.9"):
        yield Ask("GET", "/api/v1/server", 200, media=JSON, headers={"Medperf-Client": said}, name=f"by {said}")
    yield Ask(
        "GET", CONTAINERS, 401, "token_invalid", headers={"Authorization": "Bearer x"}, name="a foreign token"
    )
    yield Ask(
        "GET",
        "/api/v1/users",
        401,
        "token_invalid",
        headers={"Authorization": "Bearer operator.x", "X-Forwarded-For": "127.0.0.1"},
        name="an operator's token of nobody's",
    )
    yield Ask("GET", f"{CONTAINERS}?x=1", 422, "invalid_input", is_logged_in=True)
    yield Ask("GET", f"{CONTAINERS}/a%0ab", 422, "invalid_input", is_logged_in=True)
    yield Ask("POST", CONTAINERS, 400, "idempotency_key_missing", body=b"{}", is_logged_in=True)
    yield Ask(
        "POST",
        CONTAINERS,
        422,
        "invalid_input",
        headers={"Content-Type": JSON, "Idempotency-Key": "a-key-of-mine"},
        body=b"{}",
        is_logged_in=True,
        name="a container without a name",
    )


REQUESTS: tuple[Ask, ...] = (
    *_found(),
    *_not_there(),
    *_not_plain(),
    *_wrong_method(),
    *_too_much(),
    *_refused_by_a_service(),
)
# The one difference: an operator's token exists beside an embedded server only: nobody else gets to these.
OPERATORS = tuple(sorted(prefix for prefix in ALL_ROUTES if prefix.startswith("/api/v1/dead-letters/")))
