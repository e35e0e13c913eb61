"""Who is calling, and what they may do: the access token is verified here, the one table is asked here."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import KeySet

from medperf_contracts.access import ACCESS, Role

from .errors import NoSuchThing, NotAllowed, Unauthorized, Unavailable
from .log import logger

ALGORITHM = "Ed25519"
ISSUER = "medperf"
AUDIENCE = "medperf-api"
LOOPBACK = frozenset({"127.0.0.1", "::1"})
# Of a machine that signs and one that verifies; RFC 7519 allows a few minutes.
CLOCKS_DIFFER_SECONDS = 60
OPERATOR_PREFIX = "operator."

_KNOWN_AS = {
    Role.NOBODY: "anybody",
    Role.STRANGER: "whoever may see it",
    Role.OWNER: "its owner",
    Role.OTHER_SIDE: "its other side",
    Role.ADMINISTRATOR: "an administrator",
    Role.OPERATOR: "the operator",
}


class TokenMissing(Unauthorized):
    code = "token_missing"
    hint = "Log in: medperf login"


class TokenExpired(Unauthorized):
    code = "token_expired"
    hint = "Refresh the login, or log in again: medperf login"


class TokenInvalid(Unauthorized):
    code = "token_invalid"
    hint = "This login is not one of this server's: log in again with medperf login"


def new_operator_token() -> tuple[str, str]:
    """A token by which an operator proves themselves, and its SHA-256."""
    token = OPERATOR_PREFIX + secrets.token_urlsafe(32)
    return token, hashlib.sha256(token.encode()).hexdigest()


class KeysUnreadable(Unavailable):
    code = "keys_unreadable"
    hint = "Try again in a moment; if it stays so, tell the operator: the process's log says why."


@dataclass(frozen=True)
class Caller:
    """Who calls, and which roles the endpoint admits."""

    user_id: int
    name: str
    is_admin: bool
    is_operator: bool
    admitted: frozenset[Role]

    def require(
        self,
        held: Iterable[Role],
        *,
        thing: str,
        may_see: bool = False,
        known_as: Mapping[Role, str] = MappingProxyType({}),
    ) -> None:
        """Refuse unless one of the roles that the caller holds towards `thing` is admitted.

        404 where the caller is nothing to the thing and may not know of it, else 403, which says who may:
        `known_as` is what those who hold a role towards this thing are called.
        """
        roles = set(held)
        if self.is_admin:
            roles.add(Role.ADMINISTRATOR)
        if may_see:
            roles.add(Role.STRANGER)
        if roles & self.admitted:
            return
        if not roles:
            raise NoSuchThing(f"There is no {thing} that you may see.")
        called = {**_KNOWN_AS, **known_as}
        who = dict.fromkeys(called[role] for role in Role if role in self.admitted)
        raise NotAllowed(f"Only {' or '.join(who)} may do this with {thing}.")


@dataclass(frozen=True)
class Identity:
    """What a verified token says."""

    user_id: int
    name: str
    is_admin: bool


class Gate:
    """Admits a request to an endpoint, or refuses it before anything else is looked at."""

    def __init__(self, public_keys: Callable[[], KeySet], *, operator_token_hash: str | None) -> None:
        self._public_keys = public_keys
        self._operator_token_hash = operator_token_hash
        self._claims = jwt.JWTClaimsRegistry(
            leeway=CLOCKS_DIFFER_SECONDS,
            iss={"essential": True, "value": ISSUER},
            aud={"essential": True, "value": AUDIENCE},
            sub={"essential": True},
            exp={"essential": True},
        )

    def admit(
        self, endpoint: str, *, authorization: str | None, peer: str | None, own_address: str | None
    ) -> Caller:
        """The caller of `endpoint` (such as `GET /api/v1/users`), unless no role of theirs can be admitted.

        `peer` is the address that called, `own_address` the one of this machine that it called.
        """
        admitted = ACCESS[endpoint]
        if authorization is None:
            if Role.NOBODY in admitted:
                return Caller(0, "", is_admin=False, is_operator=False, admitted=admitted)
            raise TokenMissing("This needs a login.")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise TokenInvalid("The Authorization header is not of the form 'Bearer TOKEN'.")
        if token.startswith(OPERATOR_PREFIX):
            return self._admit_operator(token, endpoint, is_here=peer in LOOPBACK or peer == own_address)
        if Role.NOBODY in admitted:
            # A stale login must not keep anybody from logging in.
            return Caller(0, "", is_admin=False, is_operator=False, admitted=admitted)
        identity = self.verify(token)
        if admitted == {Role.OPERATOR}:
            raise NotAllowed("Only the operator, on the server's own machine, may do this.")
        if admitted <= {Role.ADMINISTRATOR, Role.OPERATOR} and not identity.is_admin:
            raise NotAllowed("Only an administrator may do this.")
        return Caller(identity.user_id, identity.name, identity.is_admin, is_operator=False, admitted=admitted)

    def verify(self, token: str) -> Identity:
        """What the access token says, once its signature, issuer, audience and time are checked."""
        try:
            keys = self._public_keys()
        except (OSError, ValueError) as error:  # being replaced at this moment, or gone: the login may be good
            logger.error("keys_unreadable", cause=repr(error))
            detail = "The keys by which logins are known cannot be read."
            raise KeysUnreadable(detail, retry_after_seconds=1) from None
        try:
            decoded = jwt.decode(token, keys, algorithms=[ALGORITHM])
            self._claims.validate(decoded.claims)
            claims = decoded.claims
            return Identity(int(claims["sub"]), str(claims["name"]), claims["admin"] is True)
        except ExpiredTokenError:
            raise TokenExpired("The login has expired.") from None
        except (JoseError, ValueError, KeyError, TypeError):
            raise TokenInvalid("The login token is not one that this server signed.") from None

    def _admit_operator(self, token: str, endpoint: str, *, is_here: bool) -> Caller:
        digest = hashlib.sha256(token.encode()).hexdigest()
        if self._operator_token_hash is None or not hmac.compare_digest(digest, self._operator_token_hash):
            raise TokenInvalid("The operator's token is not the one that this server wrote at its start.")
        if not is_here:
            raise NotAllowed("The operator's token is good on the server's own machine only.")
        admitted = ACCESS[endpoint]
        if Role.OPERATOR not in admitted and Role.NOBODY not in admitted:
            raise NotAllowed("The operator's token is not a person's login: this needs one.")
        return Caller(0, "operator", is_admin=False, is_operator=True, admitted=admitted)
