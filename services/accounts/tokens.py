"""Passwords, access tokens and refresh tokens: how each is made and checked."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any
from uuid import UUID, uuid4

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from joserfc import jwt
from joserfc.jwk import OKPKey

from medperf_contracts.accounts import ACCESS_LASTS_MINUTES, PASSWORD_LENGTH_MOST
from services.kernel.auth import ALGORITHM, AUDIENCE, ISSUER

from .domain import User

# Short, since it cannot be taken back; the client refreshes it without asking.
ACCESS_LASTS_SECONDS = ACCESS_LASTS_MINUTES * 60
# Each costs 64 MiB and some 50 ms of a core: more at once would starve the rest of the process.
_HASHING_AT_ONCE = 2

_hasher = PasswordHasher()  # argon2id, with the library's parameters (RFC 9106, low-memory profile)
_hashing = asyncio.Semaphore(_HASHING_AT_ONCE)


async def hash_password(password: str) -> str:
    """The argon2id hash of a password, made outside the event loop."""
    async with _hashing:
        return await asyncio.to_thread(_hasher.hash, password)


def hash_of_password_in(name: str) -> Callable[[Any], Awaitable[str | None]]:
    """Hashes the password that a request's document has under `name`; one that its schema refuses has no hash."""

    async def hash_it(document: Any) -> str | None:
        password = document.get(name) if isinstance(document, dict) else None
        if not isinstance(password, str) or len(password) > PASSWORD_LENGTH_MOST:
            return None
        return await hash_password(password)

    return hash_it


async def verify_password(password: str, password_hash: str | None) -> bool:
    """Whether the password is right; as slow for a user who does not exist, so that names cannot be found out."""
    async with _hashing:
        return await asyncio.to_thread(_verify, password, password_hash)


def _verify(password: str, password_hash: str | None) -> bool:
    try:
        _hasher.verify(password_hash or _nobody_hash(), password)
    except (VerifyMismatchError, InvalidHashError):
        return False
    return password_hash is not None


@cache
def _nobody_hash() -> str:
    return _hasher.hash(secrets.token_hex(16))


def new_refresh_token(login_id: UUID) -> str:
    """A refresh token: the login that it belongs to, and a secret."""
    return f"{login_id}.{secrets.token_urlsafe(32)}"


def login_of(refresh_token: str) -> UUID | None:
    """The login that a refresh token says it belongs to."""
    try:
        return UUID(refresh_token.partition(".")[0])
    except ValueError:
        return None


def hash_token(refresh_token: str) -> str:
    """What is kept of a refresh token: it is random, so a plain hash is enough."""
    return hashlib.sha256(refresh_token.encode()).hexdigest()


def sign_access_token(key: OKPKey, user: User) -> str:
    """An access token that every service can verify by the public key alone."""
    issued = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(user.id),
        "name": user.username,
        "admin": user.is_admin,
        "jti": str(uuid4()),  # no two are the same, also of one second: RFC 9068 asks for it
        "iat": issued,
        "exp": issued + ACCESS_LASTS_SECONDS,
    }
    return jwt.encode({"alg": ALGORITHM, "kid": key.kid}, claims, key, algorithms=[ALGORITHM])
