"""Who a person is and how long a login lasts: the rules of accounts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from medperf_contracts.accounts import PASSWORD_LENGTH_LEAST

from .errors import (
    AccountDisabled,
    LastAdministrator,
    LoginEnded,
    PasswordTooShort,
    StoreNotEmpty,
    StoreNotForDemo,
    WrongCredentials,
)

# A login that is used at least once a month never asks for the password again.
LOGIN_LASTS = timedelta(days=30)


@dataclass(kw_only=True)
class User:
    """An account."""

    id: int = field(init=False)
    version: int = field(init=False)
    username: str
    password_hash: str
    is_admin: bool
    is_active: bool = True
    created_at: datetime

    def check_active(self) -> None:
        """Refuse what only an account in use may do."""
        if not self.is_active:
            raise AccountDisabled(f"The account '{self.username}' is disabled.")

    def check_login(self, verified_hash: str) -> None:
        """Refuse a login where the account was disabled, or its password replaced, while it was checked."""
        self.check_active()
        if self.password_hash != verified_hash:
            raise WrongCredentials("The name or the password is wrong.")

    def disable(self, *, other_administrators: int) -> None:
        """No login of this account is good any more; of the active administrators, one always stays."""
        if self.is_active and self.is_admin and not other_administrators:
            raise LastAdministrator(f"'{self.username}' is the last active administrator of this server.")
        self.is_active = False

    def enable(self) -> None:
        """The account is in use again; its earlier logins stay ended."""
        self.is_active = True

    def make_admin(self) -> None:
        """An administrator from the next access token on: a token says what its person is."""
        self.is_admin = True

    def set_password(self, password_hash: str) -> None:
        """Replace the password."""
        self.password_hash = password_hash


@dataclass(kw_only=True)
class Login:
    """One login of one person: the chain of its refresh tokens.

    A token rotates at each use. The one before may be presented again as long as its successor was never used:
    then the answer that carried the successor was lost. Anything older was copied by somebody: the login ends.
    """

    id: UUID
    user_id: int
    current_hash: str
    previous_hash: str | None
    expires_at: datetime
    is_ended: bool

    def check_alive(self, *, at: datetime) -> None:
        """Refuse a login that was ended or not used for too long."""
        if self.is_ended:
            raise LoginEnded("This login was ended.")
        if at >= self.expires_at:
            raise LoginEnded("This login was not used for too long.")

    def rotate(self, presented_hash: str, successor_hash: str, *, at: datetime) -> bool:
        """Replace the presented token by its successor; False (and ended) if it was replaced before."""
        if presented_hash == self.current_hash:
            self.previous_hash = presented_hash
        elif presented_hash != self.previous_hash:
            self.end()
            return False
        self.current_hash = successor_hash
        self.expires_at = at + LOGIN_LASTS
        return True

    def end(self) -> None:
        """No token of this login is good any more."""
        self.is_ended = True


@dataclass(kw_only=True)
class Store:
    """The identity of everything that this server keeps."""

    id: int
    store_id: UUID
    seeded_with: str | None
    created_at: datetime

    def mark_seeded(self, demo: str, *, users: int, is_embedded: bool, is_on_loopback: bool) -> None:
        """Remember, before the first account with a known password is made, that this store is a demo's."""
        if not is_embedded:
            raise StoreNotForDemo("This server is not an embedded one.")
        if not is_on_loopback:
            raise StoreNotForDemo("This server listens on more than this machine's own loopback address.")
        if users or self.seeded_with is not None:
            what = f"it was seeded with '{self.seeded_with}'" if self.seeded_with else f"it has {users} accounts"
            raise StoreNotEmpty(f"This server is not empty: {what}.")
        self.seeded_with = demo

    def check_new_password(self, password: str) -> None:
        """Refuse a short password, but on a demo's store: its people's is known, and it stays on loopback."""
        if self.seeded_with is None and len(password) < PASSWORD_LENGTH_LEAST:
            raise PasswordTooShort(f"A password has at least {PASSWORD_LENGTH_LEAST} characters.")
