"""Where a registered address may lead this machine: into the site's own network only where the site agrees."""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
from contextlib import suppress
from enum import IntEnum
from urllib.parse import urlsplit

from .errors import UsageError
from .proxies import covers

ALLOWED = "MEDPERF_ALLOW_HOSTS"
_PORTS = {"http": 80, "https": 443}
# What no public name ends with; one without a dot is none either.
_INSIDE = (".local", ".localdomain", ".internal", ".intranet", ".lan", ".home.arpa")
# Behind a proxy, which resolves names itself, a machine may have nobody to ask.
_ASKING_SECONDS = 3.0
_THIS_HOST = ipaddress.ip_network("0.0.0.0/8")
# Networks in which an IPv4 address stands for itself in IPv6 (NAT64, RFC 6052): its last 32 bits.
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Nearness(IntEnum):
    """How near a host is to this machine."""

    PUBLIC = 0
    PRIVATE = 1
    THIS_MACHINE = 2


def origin_of(url: str) -> tuple[str, str, int]:
    """(scheme, host, port) of an http or https address."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(parts.scheme, 0)


def check_host(url: str, *, gateway: str, has_proxy: bool) -> list[str]:
    """The IP addresses behind `url`, each of which was looked at: connect to one of these and to no other.

    Empty where the address is the gateway's own, and where a proxy on the way resolves the name. UsageError for
    this machine, unless the gateway is on it, and for private addresses, unless the gateway has one; a host that
    `MEDPERF_ALLOW_HOSTS` names may be either. OSError where a name is not known.
    """
    if origin_of(url) == origin_of(gateway):
        return []
    _, host, port = origin_of(url)
    found = _resolved_in_time(host, port) if has_proxy else _resolved(host, port)
    if not _is_allowed(host, port, found):
        near = max((_by_name(host), *(nearness(address) for address in found)))
        if near > _nearness_of_gateway(gateway, near, has_proxy=has_proxy):
            raise _refused(url, host, near)
    return [] if has_proxy else [str(address) for address in found]


def nearness(address: Address) -> Nearness:
    """How near an address is; one of IPv6 that only wraps one of IPv4 is as near as that."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return nearness(inner)
    if address.is_loopback or address.is_unspecified or (address.version == 4 and address in _THIS_HOST):
        return Nearness.THIS_MACHINE
    return Nearness.PUBLIC if address.is_global and not address.is_multicast else Nearness.PRIVATE


def _by_name(host: str) -> Nearness:
    name = host.lower()
    with suppress(ValueError):
        return nearness(ipaddress.ip_address(name))
    if name == "localhost" or name.endswith(".localhost"):
        return Nearness.THIS_MACHINE
    return Nearness.PRIVATE if "." not in name or name.endswith(_INSIDE) else Nearness.PUBLIC


def _nearness_of_gateway(gateway: str, asked: Nearness, *, has_proxy: bool) -> Nearness:
    """That of its address as the person gave it; of its name only private can be learnt, and by all addresses."""
    _, host, port = origin_of(gateway)
    named = _by_name(host)
    if named >= asked:
        return named
    try:
        found = _resolved_in_time(host, port) if has_proxy else _resolved(host, port)
    except OSError:
        return named
    return min((Nearness.PRIVATE, *(nearness(address) for address in found))) if found else named


def _is_allowed(host: str, port: int, found: list[Address]) -> bool:
    entries = os.environ.get(ALLOWED, "")
    if covers(entries, host, port):
        return True
    return bool(found) and all(covers(entries, str(address), port) for address in found)


def _resolved(host: str, port: int) -> list[Address]:
    rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # An address of one's own link has its interface behind a %.
    texts = dict.fromkeys(str(row[4][0]).partition("%")[0] for row in rows)
    return [ipaddress.ip_address(text) for text in texts]


def _resolved_in_time(host: str, port: int) -> list[Address]:
    """The same where nothing depends on an answer: none where there is none soon."""
    found: list[Address] = []

    def ask() -> None:
        with suppress(OSError):
            found.extend(_resolved(host, port))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_ASKING_SECONDS)
    return list(found)


def _refused(url: str, host: str, near: Nearness) -> UsageError:
    where = "on this machine" if near is Nearness.THIS_MACHINE else "in a private network"
    return UsageError(
        f"{url} is {where}, and the server is not: it is not asked for.",
        hint=f"If your site keeps the file there, say so: {ALLOWED}={host} (names, addresses, networks, commas"
        " between). Else do not, and tell the server's operator: a registered address may be meant to make this"
        " machine send requests inside your network.",
    )
