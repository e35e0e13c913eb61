"""The secret files of a deployment: made once, each renewed by itself."""

from __future__ import annotations

import json
import os
import secrets
import stat
from pathlib import Path

from joserfc.jwk import OKPKey

from services.accounts import signing_keys
from services.composition import DEFINITIONS
from services.deployment import (
    BROKER_ADMIN_PASSWORD,
    DATABASE_ADMIN_PASSWORD,
    PUBLIC_KEYS,
    SIGNING_KEYS,
    owner_of,
)
from services.kernel import topology
from services.operator_error import OperatorError

ERLANG_COOKIE = "erlang_cookie"
BROKER_DEFINITIONS = "rabbitmq_definitions.json"
_BITS_BYTES = 32
_GROUP_READS = 0o640

BROKER_USERS = {
    topology.ADMINISTRATOR: BROKER_ADMIN_PASSWORD,
    **{
        definition.name: f"{definition.name}_broker_password"
        for definition in DEFINITIONS
        if definition.publishes or definition.consumers
    },
}
PASSWORDS = (
    DATABASE_ADMIN_PASSWORD,
    *(f"{role}_database_password" for each in DEFINITIONS for role in (each.name, owner_of(each.name))),
    *BROKER_USERS.values(),
    ERLANG_COOKIE,
)
# The administrator of the databases and the cookie are changed in the servers themselves first.
RENEWABLE = (*(name for name in PASSWORDS if name not in (ERLANG_COOKIE, DATABASE_ADMIN_PASSWORD)), SIGNING_KEYS)


def create(folder: Path, *, group: int | None = None) -> list[str]:
    """Make every secret that is not there yet; returns the names of those made.

    With a `group`, its members may read them, now and whenever one is renewed.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if group is not None:
        _open_to(folder, group)
    made = [name for name in PASSWORDS if not (folder / name).exists()]
    for name in made:
        _write(folder / name, secrets.token_urlsafe(_BITS_BYTES))
    if not (folder / SIGNING_KEYS).exists():
        _write_keys(folder, [])
        made += [SIGNING_KEYS, PUBLIC_KEYS]
    if made or not _is_current(folder / BROKER_DEFINITIONS):
        _write_definitions(folder)
        made.append(BROKER_DEFINITIONS)
    return made


def renew(folder: Path, name: str) -> None:
    """Replace one secret by a new one; what is made of it is made again."""
    if name not in RENEWABLE or not (folder / name).exists():
        raise OperatorError(
            f"There is no secret '{name}' in {folder} that can be renewed.",
            hint=f"One of: {', '.join(RENEWABLE)}.",
        )
    if name == SIGNING_KEYS:
        _write_keys(folder, list(signing_keys.keys_in(folder / SIGNING_KEYS)))
        return
    _write(folder / name, secrets.token_urlsafe(_BITS_BYTES))
    if name in BROKER_USERS.values():
        _write_definitions(folder)


def _write_keys(folder: Path, before: list[OKPKey]) -> None:
    """The key that was next signs now, and the one that signed is known until the next renewal."""
    current, following = (before[1] if before else signing_keys.new_key()), signing_keys.new_key()
    known = [current, following, *before[:1]]
    # The public ones first: whoever is stopped between the two has no key that signs and is not known.
    _write(folder / PUBLIC_KEYS, signing_keys.as_document(known, private=False))
    _write(folder / SIGNING_KEYS, signing_keys.as_document([current, following], private=True))


def _write_definitions(folder: Path) -> None:
    passwords = {user: (folder / name).read_text() for user, name in BROKER_USERS.items()}
    document = topology.definitions(DEFINITIONS) | topology.users(DEFINITIONS, passwords)
    _write(folder / BROKER_DEFINITIONS, json.dumps(document, indent=2) + "\n")


def _open_to(folder: Path, group: int) -> None:
    """Let the group read the folder; its set-group-ID bit says so to whatever is written into it later."""
    os.chown(folder, -1, group)
    folder.chmod(0o2750)
    for path in folder.iterdir():
        os.chown(path, -1, group)
        path.chmod(_GROUP_READS)


def _is_current(path: Path) -> bool:
    """Whether the definitions are this version's: an upgrade may bring consumers, topics and rights."""
    try:
        kept = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    wanted = topology.definitions(DEFINITIONS) | topology.users(DEFINITIONS, dict.fromkeys(BROKER_USERS, ""))
    for document in (kept, wanted):
        for user in document["users"]:
            del user["password_hash"]  # a new salt each time
    return bool(kept == wanted)


def _write(path: Path, content: str) -> None:
    """Whole or not at all, readable by its owner only, and by the group to which its folder was opened."""
    folder = path.parent.stat()
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        if folder.st_mode & stat.S_ISGID:
            os.fchmod(descriptor, _GROUP_READS)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
