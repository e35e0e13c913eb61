"""Why the accounts service refuses."""

from __future__ import annotations

from services.kernel.errors import BadRequest, Conflict, Forbidden, Unauthorized


class WrongCredentials(Unauthorized):
    code = "wrong_credentials"
    hint = "Check the name and the password; after a reset of the server its accounts are new."


class AccountDisabled(Forbidden):
    code = "account_disabled"
    hint = "Ask the server's operator: medperf-server user enable NAME"


class LoginEnded(Unauthorized):
    code = "login_ended"
    hint = "Log in again: medperf login"


class UserExists(Conflict):
    code = "user_exists"
    hint = "Choose another name."


class PasswordTooShort(BadRequest):
    code = "password_too_short"
    hint = "Choose a longer one: several words are easy to remember."


class PasswordUnchanged(BadRequest):
    code = "password_unchanged"
    hint = "Choose another one: whoever knows the old password knows this one too."


class LastAdministrator(Conflict):
    code = "last_administrator"
    hint = "Make another person an administrator first: medperf-server user make-admin NAME"


class StoreNotEmpty(Conflict):
    code = "store_not_empty"
    hint = "Seed a server that was just made, or empty this one first: medperf-server reset"


class StoreNotForDemo(Conflict):
    code = "store_not_for_demo"
    hint = "The demo's people have a known password: seed only an embedded server that listens on 127.0.0.1."
