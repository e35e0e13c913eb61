"""Bodies and views of the accounts service."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field, StringConstraints

from .values import Body, Id, Instant, ThingView, Username, View

# argon2id hashes any length, but a bound keeps one request from costing more than another.
PASSWORD_LENGTH_MOST = 1024
Password = Annotated[str, StringConstraints(min_length=1, max_length=PASSWORD_LENGTH_MOST)]
RefreshToken = Annotated[str, StringConstraints(min_length=20, max_length=256)]


# NIST SP 800-63B, section 5.1.1, for what a person chooses. A demo's known password is shorter.
PASSWORD_LENGTH_LEAST = 8
ACCESS_LASTS_MINUTES = 15
# Services verify an access token by itself: a login that was ended goes on for as long as its last token, and for
# the minute by which machines' clocks may differ.
ENDED_GOES_ON_MINUTES = ACCESS_LASTS_MINUTES + 1


class Login(Body):
    """A person's name and password."""

    username: Username
    password: Password


class Refresh(Body):
    """A refresh token, which is used up by this call."""

    refresh_token: RefreshToken


class Tokens(View):
    """A short-lived access token and the refresh token that replaces it."""

    access_token: str
    refresh_token: str
    expires_in_seconds: int
    user_id: Id
    username: str


class NewUser(Body):
    """An account to be made; only the operator can."""

    username: Username
    password: Password
    is_admin: bool = False


class NewPassword(Body):
    """The password that the operator gives to an account."""

    password: Password


class PasswordChange(Body):
    """A person's own new password; the login that the refresh token belongs to goes on, their others end."""

    old_password: Password
    new_password: Password
    refresh_token: RefreshToken


class UserView(ThingView):
    """An account; one that is not active can neither log in nor go on with a login."""

    username: str
    is_admin: bool
    is_active: bool = True
    created_at: Instant


class ServerView(View):
    """Which store this is, and what it is."""

    store_id: UUID
    version: str
    is_embedded: bool
    seeded_with: str | None = Field(None, description="The demo that filled it; its people have a known password")
    time: Instant


class Seeding(Body):
    """Marks an empty embedded store as filled by a demo, before its first account is made."""

    demo: Annotated[str, StringConstraints(pattern=r"^[a-z]{1,32}$")]
