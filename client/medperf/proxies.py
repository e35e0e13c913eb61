"""The proxy that this machine's settings name for an address, and the exceptions from it."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .errors import ClientError, ServerUnreachable, UsageError
from .home import is_loopback

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9._:-]+")
_PLAIN = re.compile(r"[!-~]{1,2000}")
_NEEDS_LOGIN = 407
# What a proxy answers while it, or what is behind it, is down: it may pass.
_STATUSES_TO_WAIT_FOR = {429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Proxy:
    """A proxy as a variable names it. `url` may hold a name and a password, which are never shown."""

    variable: str
    host: str
    has_credentials: bool
    url: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.host} ({self.variable})"


def proxy_for(url: str) -> Proxy | None:
    """The proxy on the way to `url`, by the variables that curl, pip and httpx read; None for none.

    Never one for this machine itself: it could read what is sent, and could not reach the server. NO_PROXY holds
    host names (with all below them), addresses, networks such as 10.0.0.0/8, each with or without a port, or `*`.
    UsageError, without the value, for a proxy that cannot be used.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or covers(no_proxy(), host, parts.port or _PORTS.get(parts.scheme, 0)):
        return None
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        variable, value = _setting(name)
        if value:
            return _parsed(variable, value)
    return None


def refused_by(proxy: Proxy, url: str, status: int) -> tuple[ClientError, bool]:
    """What a proxy's own refusal means for the person, and whether it may pass."""
    if status == _NEEDS_LOGIN:
        why = (
            "does not accept the name and password in it" if proxy.has_credentials else "wants a name and password"
        )
        hint = (
            f"Set {proxy.variable} to http://NAME:PASSWORD@{proxy.host}, with what is no letter or digit in either"
            " as %XX; your site's network people know them. Or name the host in NO_PROXY, where it is reached"
            " without a proxy."
        )
        return ServerUnreachable(f"The proxy {proxy} {why}, on the way to {url} (407).", hint=hint), False
    hint = (
        f"Ask your site's network people whether it lets this machine through to {url}; name the host in NO_PROXY"
        " where it is reached without a proxy. Then run the same command again: nothing is sent twice."
    )
    error = ServerUnreachable(f"The proxy {proxy} does not let through to {url} (status {status}).", hint=hint)
    return error, status in _STATUSES_TO_WAIT_FOR


def status_of(refusal: str) -> int:
    """The status in the text of a refused CONNECT; 0 where there is none."""
    found = re.match(r"(\d{3})\b", refusal)
    return int(found[1]) if found else 0


def no_proxy() -> str:
    """The exceptions as they are set; empty for none."""
    return _setting("no_proxy")[1]


def _setting(name: str) -> tuple[str, str]:
    """(the variable as spelled, its value); the lower-case one goes first, also where it is empty."""
    variable = name if name in os.environ else name.upper()
    return variable, os.environ.get(variable, "").strip()


def _parsed(variable: str, value: str) -> Proxy:
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        raise _unusable(variable) from None
    host = parts.hostname or ""
    if parts.scheme not in _PORTS or not (_HOST.fullmatch(host) and _PLAIN.fullmatch(url)):
        raise _unusable(variable)
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Proxy(variable, shown, parts.username is not None, url)


def _unusable(variable: str) -> UsageError:
    return UsageError(
        f"The proxy that {variable} names cannot be used: it is no http:// or https:// address of a host.",
        hint=f"Give {variable} as http://[NAME:PASSWORD@]HOST:PORT, with what is no letter or digit in name and"
        " password as %XX, or unset it; SOCKS is not supported.",
    )


def covers(entries: str, host: str, port: int) -> bool:
    """Whether a list of hosts, written as in NO_PROXY, names this one."""
    return any(_covers(entry, host.lower(), port) for entry in re.split(r"[,\s]+", entries.lower()) if entry)


def _covers(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    if (network := _network(entry)) is not None:
        address = _network(host)
        return address is not None and address.version == network.version and address[0] in network
    named = re.fullmatch(r"(\[[^\]]+\]|[^:]+):(\d+)", entry)
    if named:
        return int(named[2]) == port and _covers(named[1], host, port)
    entry = entry.removeprefix("*").removeprefix(".")
    return bool(entry) and (host == entry or host.endswith(f".{entry}"))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None
