"""The front door of a deployment: an nginx configuration (1.22 or later), rendered from the one table of routes.

`deploy/nginx/` keeps what `deployments` gives; `make docs` writes it anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template

from medperf_contracts.bounds import BODY_BYTES_MOST
from medperf_contracts.problems import MEDIA_TYPE
from medperf_contracts.versions import IDEMPOTENCY_HEADER
from services.kernel.errors import (
    AppError,
    BadHttpRequest,
    BodyTooLarge,
    InternalError,
    MethodNotAllowed,
    NoSuchAddress,
)
from services.kernel.problems import problem_response

from .admission import HEAD_LINE_BYTES_MOST, NOT_PLAIN
from .errors import (
    AddressTooLong,
    BadRange,
    HeadersTooLarge,
    ServiceTooSlow,
    ServiceUnreachable,
    TlsRequired,
    TooManyRequests,
)
from .routes import API, ASSET_MEDIA_TYPE, ASSETS, from_outside

LOGIN = f"{API}/auth/login"
# Where nginx finds the answer to what it refuses by itself; nobody reaches it from outside.
_PROBLEMS = "/problems"
_TEMPLATE = Path(__file__).with_name("nginx.conf.in")
_TEMPORARY = ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
# Which of nginx's own statuses are answered by which problem. 494 and 497 are its own numbers: a head that is too
# large, and plain http on the port of TLS.
_REFUSALS: Mapping[str, tuple[Sequence[int], AppError]] = {
    "bad_request": (
        (400, 501, 505),
        BadHttpRequest("The request is not well-formed HTTP, or not what is served here."),
    ),
    "tls_required": ((497,), TlsRequired("This is plain http, and this server speaks TLS.")),
    "no_such_address": ((403, 404), NoSuchAddress("There is nothing at this address.")),
    "method_not_allowed": ((405,), MethodNotAllowed("This address does not answer that method.")),
    "body_too_large": ((413,), BodyTooLarge(f"The body is larger than {BODY_BYTES_MOST} bytes.")),
    "address_too_long": ((414,), AddressTooLong(f"The address has more than {HEAD_LINE_BYTES_MOST} bytes.")),
    "bad_range": ((416,), BadRange("The file has no such part.")),
    "headers_too_large": ((494,), HeadersTooLarge(f"A header has more than {HEAD_LINE_BYTES_MOST} bytes.")),
    "too_many_requests": ((429,), TooManyRequests("Too many requests came from this network address.")),
    "internal_error": (
        (500,),
        InternalError("The gateway failed at this request; its log tells the operator why."),
    ),
    "service_unreachable": ((502, 503), ServiceUnreachable("No replica of the service took the request.")),
    "service_too_slow": ((504,), ServiceTooSlow("The service did not answer in time.")),
}


@dataclass(frozen=True)
class Tls:
    """The files by which the gateway proves itself, in PEM."""

    certificate: str
    key: str


@dataclass(frozen=True)
class Gateway:
    """What differs from one deployment to another."""

    upstreams: Mapping[str, str]
    """By service: the `name:port` whose every address is a replica, looked up again while nginx runs."""
    resolver: str
    """The name server, as in nginx's directive `resolver`."""
    listen: str
    monitor: str
    """Where an orchestrator asks `/live`: on a port of its own, which is not for the network."""
    tls: Tls | None
    """None where a proxy in front of it, in the deployment's own network, speaks TLS."""
    assets: str
    """The folder with the files under `/assets`."""
    folder: str = "/tmp"  # noqa: S108 (the one writable folder of a container; nginx makes its own in it, 0700)
    access_log: str = "/dev/stdout"
    proxies: Sequence[str] = ()
    """Networks of proxies in front that name the caller's address in `X-Forwarded-For`."""
    requests_a_second: int = 50
    logins_a_minute: int = 20


def deployments() -> dict[str, str]:
    """The configurations that are kept in `deploy/nginx`, by file name."""
    services = sorted(set(from_outside().values()))
    compose = Gateway(
        upstreams={service: f"{service}:8000" for service in services},
        resolver="127.0.0.11 valid=2s ipv6=off",
        listen="8080",
        monitor="9000",
        tls=Tls("/run/secrets/gateway_certificate.pem", "/run/secrets/gateway_key.pem"),
        assets="/srv/assets",
    )
    kubernetes = Gateway(
        upstreams={service: f"{service}.medperf.svc.cluster.local:8000" for service in services},
        resolver="kube-dns.kube-system.svc.cluster.local valid=2s",
        listen="8080",
        monitor="9000",
        tls=None,
        assets="/srv/assets",
        # The Ingress controller, whose address nobody knows beforehand: a NetworkPolicy lets nobody else in.
        proxies=("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"),
    )
    # For this machine alone: docker-compose.yml publishes it on loopback.
    plain = replace(compose, tls=None)
    return {
        "compose.conf": render(compose),
        "compose-http.conf": render(plain),
        "kubernetes.conf": render(kubernetes),
    }


def render(gateway: Gateway) -> str:
    """The whole configuration."""
    routes = from_outside()
    names = {
        "pid": f"{gateway.folder}/nginx.pid",
        "temporary": _lines(1, (f"{kind}_temp_path {gateway.folder}/{kind};" for kind in _TEMPORARY)),
        "resolver": gateway.resolver,
        "body_bytes": str(BODY_BYTES_MOST),
        "line_bytes": str(HEAD_LINE_BYTES_MOST),
        "not_plain": _quoted(f"~*{NOT_PLAIN}"),
        "routes": _lines(2, (f"{_quoted(_whole(prefix))} {service};" for prefix, service in routes.items())),
        "upstreams": _lines(
            2, (f"{service} {gateway.upstreams[service]};" for service in sorted({*routes.values()}))
        ),
        "login": _quoted(f"POST {LOGIN}"),
        "key": IDEMPOTENCY_HEADER.lower().replace("-", "_"),
        "api": API,
        "assets": ASSETS,
        "assets_folder": gateway.assets,
        "asset_type": ASSET_MEDIA_TYPE,
        "problem_type": MEDIA_TYPE,
        "calls": str(gateway.requests_a_second),
        "calls_burst": str(gateway.requests_a_second * 4),
        "logins": str(gateway.logins_a_minute),
        "logins_burst": str(gateway.logins_a_minute // 2),
        "login_wait": str(-(-60 // gateway.logins_a_minute)),
        "access_log": gateway.access_log,
        "proxies": _lines(1, _real_address(gateway.proxies)),
        "listen": f"{gateway.listen}{' ssl' if gateway.tls else ''}",
        "monitor": gateway.monitor,
        "tls": _lines(2, _tls(gateway.tls)),
        "error_pages": _lines(1, _error_pages()),
        "error_pages_again": _lines(3, _error_pages()),
        "problems": _lines(2, (_problem_location(name, refusal) for name, (_, refusal) in _REFUSALS.items())),
        "unreachable_here": _answer(NoSuchAddress("There is nothing at this address.")),
        "not_plain_here": _answer(BadHttpRequest("The address is not in its plain form.")),
    }
    return _Template(_TEMPLATE.read_text()).substitute(names)


class _Template(Template):
    """`%{name}` is filled in; the dollar is nginx's own."""

    delimiter = "%"


def _whole(prefix: str) -> str:
    return rf"~^{re.escape(prefix)}(/|\z)"


def _real_address(proxies: Sequence[str]) -> Iterator[str]:
    yield from (f"set_real_ip_from {network};" for network in proxies)
    if proxies:
        # Only what the nearest of them says: the rest of the header is the caller's own.
        yield "real_ip_header X-Forwarded-For;"


def _tls(tls: Tls | None) -> Iterator[str]:
    if tls is None:
        return
    yield f"ssl_certificate {tls.certificate};"
    yield f"ssl_certificate_key {tls.key};"
    yield "ssl_protocols TLSv1.2 TLSv1.3;"
    yield "ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20;"
    yield "ssl_session_cache shared:tls:10m;"
    yield "ssl_session_tickets off;"


def _error_pages() -> Iterator[str]:
    for name, (statuses, refusal) in _REFUSALS.items():
        shown = f" ={refusal.status}" if refusal.status not in statuses else ""
        yield f"error_page {' '.join(map(str, statuses))}{shown} {_PROBLEMS}/{name};"


def _problem_location(name: str, refusal: AppError) -> str:
    return f"location = {_PROBLEMS}/{name} {{ internal; {_answer(refusal)} }}"


def _answer(refusal: AppError) -> str:
    document = problem_response(
        status=refusal.status, code=refusal.code, detail=refusal.detail, hint=refusal.hint
    ).body
    return f"return {refusal.status} {_quoted(bytes(document).decode())};"


def _quoted(text: str) -> str:
    """As one word of the configuration, in which a backslash escapes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _lines(depth: int, lines: Iterable[str]) -> str:
    return "\n".join(f"{'    ' * depth}{line}" for line in lines)
