"""What the broker holds: an exchange, a queue per consumer, and who may do what; as definitions that it loads.

Services make nothing of it themselves: all is there before any of them publishes, and none of them may change it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .service import Definition

VHOST = "medperf"
EXCHANGE = "medperf.events"
UNREADABLE_EXCHANGE = "medperf.unreadable"
UNREADABLE_SUFFIX = ".unreadable"
ADMINISTRATOR = "administrator"
# A message that ends its consumer's process comes back this often. A message that is held for longer than the
# broker allows (half an hour) comes back too, so this is four days of a database that is away.
DELIVERIES_MOST = 200


def definitions(services: Sequence[Definition]) -> dict[str, Any]:
    """The broker's definitions without its users; ValueError where an event has no consumer."""
    consumers = [consumer for service in services for consumer in service.consumers]
    taken = {event.TOPIC for consumer in consumers for event in consumer.events}
    published = {event.TOPIC for service in services for event in service.publishes}
    if published != taken:
        raise ValueError(f"published and not consumed, or consumed and not published: {published ^ taken}")
    queues: list[dict[str, Any]] = []
    bindings: list[dict[str, Any]] = []
    for consumer in consumers:
        unreadable = f"{consumer.name}{UNREADABLE_SUFFIX}"
        queues += [_queue(consumer.name, dead_letters_to=unreadable), _queue(unreadable)]
        bindings += [_binding(EXCHANGE, consumer.name, event.TOPIC) for event in consumer.events]
        bindings.append(_binding(UNREADABLE_EXCHANGE, unreadable, unreadable))
    return {
        "vhosts": [{"name": VHOST}],
        "exchanges": [_exchange(EXCHANGE, "topic"), _exchange(UNREADABLE_EXCHANGE, "direct")],
        "queues": queues,
        "bindings": bindings,
    }


def users(services: Iterable[Definition], passwords: Mapping[str, str]) -> dict[str, Any]:
    """The broker's accounts and their rights; `passwords` are by service, and of `ADMINISTRATOR`.

    A service configures nothing, writes to the exchange only and there only the topics of its own events, and
    reads its own queues only.
    """
    made: dict[str, Any] = {
        "users": [_user(ADMINISTRATOR, passwords[ADMINISTRATOR], tags=["administrator"])],
        "permissions": [{"user": ADMINISTRATOR, "vhost": VHOST, "configure": ".*", "write": ".*", "read": ".*"}],
        "topic_permissions": [],
    }
    for service in services:
        if not (service.publishes or service.consumers):
            continue
        own_queues = f"^{re.escape(service.name)}\\."
        topics = "|".join(sorted(re.escape(event.TOPIC) for event in service.publishes))
        made["users"].append(_user(service.name, passwords[service.name], tags=[]))
        made["permissions"].append(
            {
                "user": service.name,
                "vhost": VHOST,
                "configure": "^$",
                "write": f"^{re.escape(EXCHANGE)}$" if topics else "^$",
                "read": own_queues if service.consumers else "^$",
            }
        )
        made["topic_permissions"].append(
            {
                "user": service.name,
                "vhost": VHOST,
                "exchange": EXCHANGE,
                "write": f"^({topics})$" if topics else "^$",
                "read": "^$",
            }
        )
    return made


def password_hash(password: str) -> str:
    """The form in which the broker keeps a password: a salt of four bytes, then SHA-256 of both."""
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _user(name: str, password: str, *, tags: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "password_hash": password_hash(password),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": tags,
        "limits": {},
    }


def _exchange(name: str, kind: str) -> dict[str, Any]:
    return {
        "name": name,
        "vhost": VHOST,
        "type": kind,
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {},
    }


def _queue(name: str, *, dead_letters_to: str | None = None) -> dict[str, Any]:
    arguments: dict[str, Any] = {"x-queue-type": "quorum"}
    if dead_letters_to is not None:
        arguments |= {
            "x-dead-letter-exchange": UNREADABLE_EXCHANGE,
            "x-dead-letter-routing-key": dead_letters_to,
            # The message leaves its queue when the other one has it, not before; this needs the overflow so.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-delivery-limit": DELIVERIES_MOST,
        }
    return {"name": name, "vhost": VHOST, "durable": True, "auto_delete": False, "arguments": arguments}


def _binding(exchange: str, queue: str, key: str) -> dict[str, Any]:
    return {
        "source": exchange,
        "vhost": VHOST,
        "destination": queue,
        "destination_type": "queue",
        "routing_key": key,
        "arguments": {},
    }
